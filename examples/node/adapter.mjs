#!/usr/bin/env node
// The adapter for `roomwire-check client --exec`: it drives client.mjs by commands on stdin and reports events on stdout,
// both as JSON lines.
import readline from 'node:readline';
import { Client, RequestError } from './client.mjs';
import { FLAG, codeName } from './codec.mjs';

const [host = process.env.ROOMWIRE_HOST, port = process.env.ROOMWIRE_PORT] = process.argv.slice(2);
const FEATURES = ['history', 'ordered', 'presence', 'reconnect', 'rejoin', 'repeat'];
const KINDS = ['', 'joined', 'left', 'lost', 'quiet'];
let client;
const joining = new Map(); // room -> id of the command
const leaving = new Map(); // room -> a promise that resolves when the client has left it
let connecting; // id of the command

// 64-bit integers are decimal strings, octets hexadecimal.
const plain = (_, value) => (typeof value === 'bigint' ? String(value) : value);
const write = (line) => process.stdout.write(`${JSON.stringify(line, plain)}\n`);
const report = (event, values) => write({ event, ...values });
// Promises report one microtask late. Events do the same, to keep the order.
const reportEvent = (event, values) => queueMicrotask(() => report(event, values));

function messageOf(room, message) {
  const { seq, time_ms, sender, name, ctype, payload, flags } = message;
  return {
    room: room.name, epoch: room.epoch, seq: String(seq), time_ms: String(time_ms), sender, name,
    verified: Boolean(flags & FLAG.VERIFIED), ctype, payload: payload.toString('hex'),
  };
}

const rosterOf = (room) => [...room.roster].map(([member, who]) => ({ member, ...who }));

function listen() {
  client.on('open', ({ name, member }) => {
    reportEvent('connected', { id: connecting, name, member });
    connecting = undefined;
  });
  client.on('joined', (room, { epoch, head, start, oldest, members, name }) => {
    const seqs = { head: String(head), start: String(start), oldest: String(oldest) };
    const { quiet } = room;
    reportEvent('joined', { id: joining.get(room.name), room: room.name, name, epoch, ...seqs, members, quiet });
    joining.delete(room.name);
  });
  client.on('gap', (room, { epoch, start }) => reportEvent('gap', { room: room.name, epoch, start: String(start) }));
  client.on('message', (room, message) => reportEvent('message', messageOf(room, message)));
  client.on('roster', (room) => reportEvent('presence', { room: room.name, kind: 'roster', roster: rosterOf(room) }));
  client.on('presence', (room, { kind, member, name }) => {
    const who = kind === 4 ? {} : { member, name };
    reportEvent('presence', { room: room.name, kind: KINDS[kind], ...who, roster: rosterOf(room) });
  });
  client.on('evicted', (room, { code, text, flags }) => {
    reportEvent('evicted', { room: room.name, code, text, again: Boolean(flags & FLAG.RETRY) });
  });
  client.on('closed', ({ failure, word, text }, wait) => {
    const code = failure ?? word?.code;
    const said = word && failure === null ? word.text || codeName(code) : text;
    const why = { code, text: said || 'the connection has ended' };
    reportEvent('disconnected', { ...why, again: wait !== null });
    if (wait === null) reportEvent('closed', why);
  });
}

const COMMANDS = {
  connect({ id, name }) {
    connecting = id;
    client = new Client({ host, port: Number(port), name });
    listen();
    client.connect();
  },
  join({ id, room, newest, epoch, since }, failed) {
    if (!joining.has(room)) joining.set(room, id);
    const cursor = epoch === undefined ? {} : { epoch: BigInt(epoch), since: Number(since) };
    return client.join(room, { newest, ...cursor }).then(undefined, failed);
  },
  publish({ id, room, payload, ctype }, failed) {
    return client.publish(room, Buffer.from(payload, 'hex'), { ctype }).then(({ epoch, seq, time_ms }) => {
      report('published', { id, room, epoch, seq: String(seq), time_ms: String(time_ms) });
    }, failed);
  },
  leave({ id, room }, failed) {
    const left = client.leave(room).then(() => report('left', { id, room }), failed);
    leaving.set(room, left);
    return left;
  },
  history({ id, room, start = 1, end = 0, limit = 0, newest = false }, failed) {
    return client.history(room, { start: Number(start), end: Number(end), limit, newest }).then((answer) => {
      const messages = answer.messages.map((message) => messageOf({ name: room, epoch: answer.epoch }, message));
      const [from, to, oldest] = [answer.start, answer.end, answer.oldest].map(String);
      report('history', { id, room, messages, start: from, end: to, oldest, more: answer.more });
    }, failed);
  },
  quit() {
    client?.close();
    process.stdin.destroy(); // so that the process ends with the connection
  },
};

async function execute(command) {
  const { id, op, room } = command;
  const failed = (error) => {
    if (!(error instanceof RequestError)) throw error;
    if (joining.get(room) === id) joining.delete(room);
    report('error', { id, room, code: error.code ?? undefined, text: error.message, unknown: error.unknown });
  };
  try {
    if (leaving.has(room)) await leaving.get(room); // commands about one room run in order
    await COMMANDS[op](command, failed);
  } catch (error) {
    failed(error);
  }
}

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
  const command = JSON.parse(line);
  if (Object.hasOwn(COMMANDS, command.op)) execute(command);
  else write({ id: command.id, unsupported: command.op });
});
input.on('close', () => client?.close());
write({ ready: true, contract: 1, name: 'roomwire example for Node.js', version: '1', features: FEATURES });
