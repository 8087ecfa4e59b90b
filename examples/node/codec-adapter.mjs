#!/usr/bin/env node
// The adapter for `roomwire-check codec --exec`: it answers JSON lines with codec.mjs.
import readline from 'node:readline';
import {
  CODE, Inbox, MAGIC, Refusal, checkLength, clientPreface, codeName, decode, encode, encodeRaw, layoutOf, parseHeader,
  serverPreface,
} from './codec.mjs';

const EXTENSIONS = ['history', 'admin'];
const DEFAULT_LIMIT = 65536;

// Values in JSON, as in SPEC.md, appendix B: u64 and n64 are decimal strings, octets hexadecimal.
const TO_JSON = {
  u64: String, n64: String, o8: hex, o16: hex, b16: hex, b32: hex,
  entries: (entries) => entries.map((entry) => ({ ...entry, member: String(entry.member) })),
};
const FROM_JSON = {
  u64: BigInt, n64: BigInt, o8: octets, o16: octets, b16: octets, b32: octets,
  entries: (entries) => entries.map((entry) => ({ ...entry, member: BigInt(entry.member) })),
};
function hex(value) { return value.toString('hex'); }
function octets(text) { return Buffer.from(text, 'hex'); }

function toJson({ frame, flags, request, room, ...rest }) {
  if (frame === 'UNKNOWN') return { frame, value: { type: rest.type, flags, request, room, body: hex(rest.body) } };
  const value = { flags, request, room };
  for (const [name, kind] of layoutOf(frame)) value[name] = (TO_JSON[kind] ?? ((plain) => plain))(rest[name]);
  if (frame === 'ROSTER') value.count = value.entries.length;
  value.fields = rest.fields.map((field) => ({ type: field.type, value: hex(field.value) }));
  return { frame, value };
}

function encodeJson(frame, value) {
  if (frame === 'CLIENT_PREFACE') return clientPreface(value.version_min, value.version_max);
  if (frame === 'SERVER_PREFACE') return serverPreface(value.version);
  if (frame === 'UNKNOWN') return encodeRaw(value.type, { ...value, body: octets(value.body) });
  const values = { ...value, fields: value.fields.map((field) => ({ type: field.type, value: octets(field.value) })) };
  for (const [name, kind] of layoutOf(frame)) values[name] = (FROM_JSON[kind] ?? ((plain) => plain))(value[name]);
  return encode(frame, values);
}

const OPS = {
  decode({ hex: text, from, limit = DEFAULT_LIMIT }) {
    const stream = octets(text);
    if (stream.length < 16) return { need_more: true };
    const header = parseHeader(stream);
    checkLength(header, limit);
    const body = stream.subarray(16);
    if (body.length < header.length) return { need_more: true };
    if (body.length > header.length) throw new Refusal(CODE.MALFORMED, 'more than one frame');
    return toJson(decode(header, body, from, EXTENSIONS));
  },

  encode({ frame, value }) { return { hex: hex(encodeJson(frame, value)) }; },

  feed({ chunks, from, limit = DEFAULT_LIMIT }) {
    const inbox = new Inbox();
    const frames = [];
    try {
      for (const chunk of chunks) {
        inbox.push(octets(chunk));
        for (let next; (next = inbox.frame(limit)) !== null;) frames.push(toJson(decode(...next, from, EXTENSIONS)));
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { frames, error: codeName(error.code) };
    }
    return { frames, need_more: inbox.inFrame };
  },

  preface({ hex: text, from }) {
    const inbox = new Inbox();
    inbox.push(octets(text));
    const preface = inbox.preface();
    if (preface === false) return { error: 'BAD_PREFACE' };
    if (preface === null) return { need_more: true };
    const [first, second] = preface.subarray(MAGIC.length);
    return from === 'C'
      ? { frame: 'CLIENT_PREFACE', value: { version_min: first, version_max: second } }
      : { frame: 'SERVER_PREFACE', value: { version: first } };
  },
};

function answer(request) {
  if (!Object.hasOwn(OPS, request.op)) return { unsupported: request.op };
  try {
    return OPS[request.op](request);
  } catch (error) {
    if (error instanceof Refusal) return { error: codeName(error.code) };
    throw error;
  }
}

const write = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
write({ ready: true, contract: 1, name: 'roomwire example for Node.js', version: '1', features: Object.keys(OPS) });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  write({ id: request.id, ...answer(request) });
}
