#!/usr/bin/env node
// A Roomwire server that keeps everything in memory: node server.mjs PORT [HOST].
//
// The environment can set each limit of SPEC.md, section 15, that is in LIMITS: ROOMWIRE_HEARTBEAT_MS=5000.
// A room is a log, and a member is a cursor into it. The server queues nothing for a member, but reads messages from the
// log as fast as the member's connection takes them.
import { isUtf8 } from 'node:buffer';
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { performance } from 'node:perf_hooks';
import {
  CODE, FIELD, FLAG, HELLO_MAX_BODY, Inbox, RETRIED, Refusal, decode, encode, extensionField, extensionsOf,
  isRelayed, knownType, serverPreface,
} from './codec.mjs';
import { checkName, keyOf } from './names.mjs';

const LIMITS = {
  max_body: 65536, window: 32, max_rooms: 256, heartbeat_ms: 30000, dedupe_ms: 600000, preface_ms: 5000,
  handshake_ms: 10000, frame_ms: 30000, stall_ms: 30000, linger_ms: 2000, drain_ms: 10000, jitter_ms: 5000,
  replay_messages: 10000, history_messages: 500, history_octets: 1048576, retention_messages: 10000,
  retention_ms: 604800000, publish_rate: 20, publish_burst: 100,
};
for (const name of Object.keys(LIMITS)) {
  const value = process.env[`ROOMWIRE_${name.toUpperCase()}`];
  if (value !== undefined) LIMITS[name] = Number(value);
}
const EXTENSIONS = ['history'];
const RETRY_MS = 1000; // for codes with RETRY and without a time of their own
const SWEEP_MS = 50; // how often time-outs are checked
const TIDY_MS = 5000; // how often old messages and ids are dropped
const WRITE_OCTETS = 16384; // given to the transport at a time
const BLOCKED_OCTETS = 262144; // when so many wait to be written, reading and streaming stop

const CLOCK_START = Date.now() - performance.now();
const now = () => Math.floor(CLOCK_START + performance.now()); // never steps back

const retryOf = (code) => (RETRIED.has(code) ? { flags: FLAG.RETRY, retry_ms: RETRY_MS } : {});

function random64() {
  const value = randomBytes(8).readBigUInt64BE();
  return value === 0n ? random64() : value;
}

// Kinds of PRESENCE; SILENT sends no PRESENCE.
const [SILENT, JOINED, LEFT, LOST] = [0, 1, 2, 3];

const rooms = new Map(); // by key
const connections = new Set();
let lastRef = 0;
let draining = false;

class Room {
  constructor(name, key) {
    Object.assign(this, { name, key, ref: ++lastRef, epoch: random64() });
    this.log = []; // retained messages, as { seq, time_ms, octets }: octets are a MESSAGE with request 0
    this.head = 0;
    this.ids = new Map(); // id of a publish -> { seq, time_ms, content, expires }
    this.members = new Map(); // connection -> membership
    rooms.set(key, this);
  }

  get oldest() { return this.head + 1 - this.log.length; }
  message(seq) { return this.log[seq - this.oldest]; }

  append(sender, publish, content) {
    this.trim(); // before appending: members get the new message even if nothing is retained
    const seq = ++this.head;
    const time_ms = now();
    const { id } = publish;
    const values = { ...publish, request: 0, flags: 0, fields: publish.fields.filter(isRelayed) };
    const octets = encode('MESSAGE', { ...values, seq, time_ms, sender: sender.member, name: sender.name });
    this.log.push({ seq, time_ms, octets });
    if (LIMITS.dedupe_ms) this.ids.set(id.toString('hex'), { seq, time_ms, content, expires: expiry(id) });
    return { seq, time_ms };
  }

  trim() {
    const youngest = now() - LIMITS.retention_ms;
    let count = Math.max(0, this.log.length - LIMITS.retention_messages);
    while (count < this.log.length && this.log[count].time_ms < youngest) count++;
    if (count) this.log.splice(0, count);
  }

  // Drops old messages and ids, and the room once it is empty. A later room of this name has a new epoch.
  tidy() {
    this.trim();
    for (const [id, { expires }] of this.ids) if (expires < now()) this.ids.delete(id);
    if (!this.members.size && !this.log.length && !this.ids.size) rooms.delete(this.key);
  }

  presence(kind, who) {
    const octets = encode('PRESENCE', { room: this.ref, kind, member: who.member, name: who.name });
    for (const [connection, membership] of this.members) {
      if (connection.blocked) membership.outdated = true;
      else if (connection !== who) connection.write(octets);
    }
  }

  // Ends a membership; `kind` is that of the PRESENCE for the others.
  remove(connection, kind) {
    this.members.delete(connection);
    connection.memberships.delete(this.ref);
    if (kind !== SILENT) this.presence(kind, connection);
    if (!this.members.size && !this.head) rooms.delete(this.key); // RW-JOIN-3
  }

  sendRoster(connection) {
    const members = [...this.members.keys()].map(({ member, name }) => ({ member, name }));
    const portion = Math.floor((LIMITS.max_body - 2) / (8 + 1 + 1 + 64));
    for (let first = 0; first === 0 || first < members.length; first += portion) {
      const more = first + portion < members.length;
      const flags = (first === 0 ? FLAG.RESET : 0) | (more ? FLAG.MORE : 0);
      connection.send('ROSTER', { room: this.ref, flags, entries: members.slice(first, first + portion) });
    }
  }
}

const expiry = (id) => id.readUIntBE(0, 6) + LIMITS.dedupe_ms;

// A digest of the content, which two publishes with one id must share. Without accounts, all authors count as one.
function contentOf({ ctype, payload, fields }) {
  const hash = createHash('sha256').update(Buffer.from([ctype])).update(String(payload.length)).update(payload);
  for (const { type, value } of fields.filter(isRelayed)) hash.update(`;${type},${value.length};`).update(value);
  return hash.digest('hex');
}

class Connection {
  constructor(socket) {
    Object.assign(this, { socket, state: 'WAIT_PREFACE', began: now(), received: now(), sent: now() });
    // deaf: received octets are dropped; frameBegan: when the first octet of an unfinished frame arrived.
    Object.assign(this, { inbox: new Inbox(), limit: HELLO_MAX_BODY, deaf: false, frameBegan: null, extensions: [] });
    // outbox: octets that the transport has not been given yet; waiting: their number, with those that the transport has
    // not written yet; progress: when it last wrote something; ended: nothing more will be written.
    Object.assign(this, { outbox: [], waiting: 0, progress: now(), blocked: false, ended: false });
    this.memberships = new Map(); // by ref
    Object.assign(this, { tokens: LIMITS.publish_burst, refilled: now() }); // publishes allowed now
    connections.add(this);
    socket.setNoDelay(true);
    socket.on('data', (octets) => this.receive(octets));
    socket.on('end', () => this.finish());
    socket.on('error', () => {});
    socket.on('close', () => this.closed());
  }

  // ---- writing

  write(octets) {
    if (this.ended) return;
    this.outbox.push(octets);
    this.waiting += octets.length;
    this.sent = now();
    if (this.waiting === octets.length) {
      this.progress = now();
      process.nextTick(() => this.flush());
    }
    if (this.waiting > BLOCKED_OCTETS && !this.blocked) {
      this.blocked = true;
      this.socket.pause();
    }
  }

  // Gives the transport one portion, and the next once that is written, so that progress is visible.
  flush() {
    let count = 0;
    for (let size = 0; count < this.outbox.length && size < WRITE_OCTETS; count++) size += this.outbox[count].length;
    const parts = this.outbox.splice(0, count);
    const whole = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    const octets = whole.subarray(0, WRITE_OCTETS);
    if (whole.length > octets.length) this.outbox.unshift(whole.subarray(octets.length));
    this.socket.write(octets, (error) => {
      if (error) return;
      this.waiting -= octets.length;
      this.progress = now();
      if (this.blocked && this.waiting < BLOCKED_OCTETS / 2) this.unblock();
      if (this.outbox.length) this.flush();
      else if (this.ended) this.socket.end();
    });
  }

  unblock() {
    this.blocked = false;
    this.received = now(); // time without reading does not count
    if (this.frameBegan) this.frameBegan = now();
    for (const membership of [...this.memberships.values()]) {
      if (membership.outdated && membership.roster) membership.room.sendRoster(this);
      membership.outdated = false;
    }
    for (const membership of [...this.memberships.values()]) this.stream(membership);
    if (!this.blocked) this.process();
    if (!this.blocked) this.socket.resume();
  }

  send(frame, values) { this.write(encode(frame, values)); }

  // Sends the messages after the member's cursor, as long as the connection takes them.
  stream(membership) {
    if (this.blocked) return;
    const { room } = membership;
    while (membership.cursor < room.head && !this.blocked) {
      if (membership.cursor + 1 < room.oldest) {
        this.send('EVICTED', { room: room.ref, code: CODE.LAGGED, ...retryOf(CODE.LAGGED) });
        room.remove(this, LEFT);
        return;
      }
      this.write(room.message(++membership.cursor).octets);
    }
    if (!this.blocked) return;
    this.memberships.delete(room.ref); // the other rooms come first next time
    this.memberships.set(room.ref, membership);
  }

  // ---- ending

  // Writes the rest and closes; in its rooms, this member is LOST.
  finish() {
    this.leaveRooms(LOST);
    if (this.state !== 'CLOSING') Object.assign(this, { state: 'CLOSING', began: now() }); // the linger time
    if (!this.ended && !this.waiting) this.socket.end();
    this.ended = true;
  }

  leaveRooms(kind) {
    for (const { room } of [...this.memberships.values()]) room.remove(this, draining ? SILENT : kind);
  }

  closed() {
    this.finish();
    connections.delete(this);
    if (draining && !connections.size) process.exit(0);
  }

  goaway(code, text = '') {
    if (this.state === 'CLOSING') return;
    this.send('GOAWAY', { code, text, ...retryOf(code), jitter_ms: RETRIED.has(code) ? LIMITS.jitter_ms : 0 });
    Object.assign(this, { state: 'CLOSING', began: now() });
    this.leaveRooms(LOST);
    if (this.blocked) this.socket.resume();
  }

  // Checks the time-outs, and whether a PING is due.
  sweep(time) {
    const { state, began } = this;
    const over = (since, limit) => time - since > limit;
    if (state === 'WAIT_PREFACE' || state === 'CLOSING') {
      if (over(began, state === 'CLOSING' ? LIMITS.linger_ms : LIMITS.preface_ms)) this.socket.destroy();
    } else if (!this.blocked && this.frameBegan && over(this.frameBegan, LIMITS.frame_ms)) {
      this.goaway(CODE.TIMEOUT, 'frame');
    } else if (state === 'WAIT_HELLO') {
      if (over(began, LIMITS.handshake_ms)) this.goaway(CODE.TIMEOUT, 'handshake');
    } else if (this.waiting && over(this.progress, LIMITS.stall_ms)) {
      this.goaway(CODE.SLOW);
    } else if (!this.blocked && over(this.received, 2 * LIMITS.heartbeat_ms)) {
      this.goaway(CODE.TIMEOUT, 'silence');
    } else if (!this.waiting && over(this.sent, LIMITS.heartbeat_ms / 2)) {
      this.send('PING', { opaque: randomBytes(8) });
    }
  }

  // ---- reading

  receive(octets) {
    this.received = now();
    if (this.deaf) return;
    this.inbox.push(octets);
    if (this.state === 'WAIT_PREFACE') this.readPreface();
    if (this.state !== 'WAIT_PREFACE') this.process();
  }

  readPreface() {
    const preface = this.inbox.preface();
    if (preface === false) this.socket.destroy();
    if (!preface) return;
    const common = preface[4] <= 1 && preface[5] >= 1;
    this.write(serverPreface(common ? 1 : 0));
    this.state = 'WAIT_HELLO';
    if (!common) this.finish();
    else if (draining) this.goaway(CODE.SHUTDOWN);
  }

  process() {
    try {
      while (!this.blocked || this.state === 'CLOSING') {
        const next = this.inbox.frame(this.limit);
        if (!next) {
          this.frameBegan = this.inbox.inFrame ? this.frameBegan ?? now() : null;
          return;
        }
        this.frameBegan = null;
        this.handle(...next);
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.goaway(error.code, error.message);
      this.deaf = error.code === CODE.FRAME_TOO_LARGE; // the start of the next frame is unknown
      if (!this.deaf) this.process();
    }
  }

  handle(header, body) {
    if (this.state === 'CLOSING') {
      if (header.type === 0x0008) this.finish();
      return;
    }
    const known = knownType(header.type, 'C', this.extensions)?.name;
    const ignorable = !known && header.type & 0x8000 && !header.request;
    const expected = this.state === 'WAIT_HELLO' ? /^(HELLO|GOAWAY)$/.test(known) : !/^(HELLO|AUTH)$/.test(known);
    if (!expected && !ignorable) throw new Refusal(CODE.UNEXPECTED, `type ${header.type}`);
    try {
      const frame = decode(header, body, 'C', this.extensions);
      this[`on${frame.frame}`]?.(frame);
    } catch (error) {
      if (!(error instanceof Refusal) || error.fatal) throw error;
      this.refuse({ ...header, frame: known }, error.code, { text: error.message });
    }
  }

  refuse(request, code, values = {}) {
    this.send('ERROR', { request: request.request, room: request.room, code, ...retryOf(code), ...values });
    const membership = request.frame === 'PUBLISH' && this.memberships.get(request.room);
    if (membership) membership.refused = true;
    if (request.frame === 'HELLO') this.goaway(code);
  }

  onHELLO(hello) {
    const name = checkName(hello.name);
    if (name === null) return this.refuse(hello, CODE.NAME_INVALID);
    if (hello.mechanism !== 'ANONYMOUS') {
      const fields = [{ type: FIELD.MECHANISM, value: Buffer.from('ANONYMOUS') }];
      return this.refuse(hello, CODE.UNSUPPORTED_MECHANISM, { fields });
    }
    Object.assign(this, { name, member: random64(), state: 'OPEN', limit: LIMITS.max_body });
    this.extensions = EXTENSIONS.filter((extension) => extensionsOf(hello).includes(extension));
    const { max_body, heartbeat_ms, dedupe_ms, window, max_rooms } = LIMITS;
    const agent = { type: FIELD.AGENT, value: Buffer.from('roomwire-node-example') };
    return this.send('WELCOME', {
      request: hello.request, member: this.member, name, now_ms: now(), max_body, heartbeat_ms, dedupe_ms, window,
      max_rooms, fields: [...this.extensions.map(extensionField), agent],
    });
  }

  onPING({ opaque }) { this.send('PONG', { opaque }); }

  onGOAWAY({ code }) {
    this.leaveRooms(code === CODE.NONE ? LEFT : LOST);
    this.goaway(this.state === 'DRAINING' ? CODE.SHUTDOWN : CODE.NONE);
    this.finish();
  }

  onJOIN(join) {
    const name = checkName(join.name);
    if (name === null) return this.refuse(join, CODE.NAME_INVALID);
    const key = keyOf(name);
    const there = rooms.get(key);
    if (there?.members.has(this)) return this.refuse({ ...join, room: there.ref }, CODE.ALREADY_JOINED);
    if (this.memberships.size >= LIMITS.max_rooms) return this.refuse(join, CODE.TOO_MANY_ROOMS);
    const room = there ?? new Room(name, key);
    room.trim();
    const [start, gap] = startOf(room, join);
    const roster = Boolean(join.flags & FLAG.ROSTER);
    const member = { room, cursor: start - 1, roster, outdated: false, refused: false };
    room.presence(JOINED, this);
    room.members.set(this, member);
    this.memberships.set(room.ref, member);
    this.send('JOINED', {
      request: join.request, room: room.ref, flags: (gap ? FLAG.GAP : 0),
      epoch: room.epoch, head: room.head, start, oldest: room.oldest, members: room.members.size, name: room.name,
    });
    if (roster) room.sendRoster(this);
    return this.stream(member);
  }

  onLEAVE(leave) {
    const membership = this.memberships.get(leave.room);
    if (!membership) return this.refuse(leave, CODE.NOT_JOINED);
    membership.room.remove(this, LEFT);
    return this.send('OK', { request: leave.request, room: leave.room });
  }

  onPUBLISH(publish) {
    const membership = this.memberships.get(publish.room);
    if (!membership) return this.refuse(publish, CODE.NOT_JOINED);
    const { room } = membership;
    const { request, id, ctype, payload } = publish;
    const length = publish.fields.filter(isRelayed).reduce((sum, { value }) => sum + 4 + value.length, payload.length);
    if (length > LIMITS.max_body - 256) return this.refuse(publish, CODE.PAYLOAD_TOO_LARGE);
    if (ctype === 0 && !isUtf8(payload)) return this.refuse(publish, CODE.PAYLOAD_INVALID);
    const content = contentOf(publish);
    const earlier = room.ids.get(id.toString('hex'));
    if (earlier) {
      if (earlier.content !== content) return this.refuse(publish, CODE.ID_CONFLICT);
      const { seq, time_ms } = earlier;
      membership.refused = false;
      return this.send('ACK', { request, room: room.ref, flags: FLAG.DUPLICATE, seq, time_ms });
    }
    const expired = expiry(id) < now() || expiry(id) - LIMITS.dedupe_ms > now() + 60000;
    if (LIMITS.dedupe_ms && expired) return this.refuse(publish, CODE.ID_EXPIRED);
    if (publish.flags & FLAG.ORDERED && membership.refused) return this.refuse(publish, CODE.PRECEDED);
    const retry_ms = this.charge();
    if (retry_ms) return this.refuse(publish, CODE.RATE_LIMITED, { retry_ms });
    membership.refused = false;
    this.send('ACK', { request, room: room.ref, ...room.append(this, publish, content) });
    room.members.forEach((each, connection) => connection.stream(each));
    return undefined;
  }

  // Takes one token; returns 0, or the milliseconds until there is one.
  charge() {
    const rate = LIMITS.publish_rate / 1000;
    this.tokens = Math.min(LIMITS.publish_burst, this.tokens + (now() - this.refilled) * rate);
    this.refilled = now();
    if (this.tokens < 1) return Math.ceil((1 - this.tokens) / rate);
    this.tokens -= 1;
    return 0;
  }

  onHISTORY(history) {
    const { request, start, end, limit, flags } = history;
    if (end && end < start) return this.refuse(history, CODE.RANGE_INVALID);
    const room = this.memberships.get(history.room)?.room;
    if (!room) return this.refuse(history, CODE.NOT_JOINED);
    room.trim();
    const low = Math.min(Math.max(start, room.oldest), room.head + 1);
    const high = Math.max(low, Math.min(end || room.head + 1, room.head + 1));
    const [first, beyond] = portionOf(room, low, high, limit, flags & FLAG.NEWEST);
    for (let seq = first; seq < beyond; seq++) {
      const octets = Buffer.from(room.message(seq).octets);
      octets.writeUInt32BE(request, 8);
      this.write(octets);
    }
    const more = first !== low || beyond !== high ? FLAG.MORE : 0;
    const range = { start: first, end: beyond, oldest: room.oldest };
    return this.send('HISTORY_END', { request, room: room.ref, flags: more, ...range });
  }
}

// The part of [low, high) that fits one reply: the limits are in messages and in octets, but one message always fits.
function portionOf(room, low, high, limit, newest) {
  const most = Math.min(limit || LIMITS.history_messages, LIMITS.history_messages, high - low);
  let octets = 0;
  let count = 0;
  while (count < most) {
    octets += room.message(newest ? high - 1 - count : low + count).octets.length;
    if (count && octets > LIMITS.history_octets) break;
    count++;
  }
  if (!count) return [low, low];
  return newest ? [high - count, high] : [low, low + count];
}

// The formula of section 9.1: [start, gap].
function startOf(room, { epoch, since }) {
  const floor = Math.max(room.oldest, room.head + 1 - LIMITS.replay_messages);
  if (epoch === 0n) return [Math.max(floor, room.head + 1 - since), false];
  const want = epoch === room.epoch ? since + 1 : floor;
  const start = Math.min(Math.max(want, floor), room.head + 1);
  return [start, epoch !== room.epoch || start !== since + 1];
}

function drain() {
  if (draining) process.exit(0);
  draining = true;
  server.close();
  for (const connection of connections) {
    if (connection.state === 'OPEN') {
      connection.send('GOAWAY', { code: CODE.DRAINING, ...retryOf(CODE.DRAINING), jitter_ms: LIMITS.jitter_ms });
      connection.state = 'DRAINING';
    } else if (connection.state === 'WAIT_PREFACE') {
      connection.socket.destroy();
    } else {
      connection.goaway(CODE.SHUTDOWN);
    }
  }
  if (!connections.size) process.exit(0);
  setTimeout(() => connections.forEach((connection) => connection.goaway(CODE.SHUTDOWN)), LIMITS.drain_ms);
}

const [port = '7117', host = '127.0.0.1'] = process.argv.slice(2);
const server = net.createServer({ allowHalfOpen: true }, (socket) => new Connection(socket));
server.listen(Number(port), host, () => console.log(`listening on ${host} port ${server.address().port}`));
setInterval(() => connections.forEach((connection) => connection.sweep(now())), SWEEP_MS);
setInterval(() => rooms.forEach((room) => room.tidy()), TIDY_MS);
process.on('SIGTERM', drain);
process.on('SIGINT', drain);
