// Roomwire/1 octets: prefaces, headers, frames, extension fields (SPEC.md, sections 5 to 7 and 16).
// Integers up to 32 bits, seqs and times are numbers; u64 are BigInts, octets Buffers, names and texts strings.
import { isUtf8 } from 'node:buffer';

export const MAGIC = Buffer.from([0xf5, 0x52, 0x57, 0x50]);
export const HELLO_MAX_BODY = 4096;
const GREATEST_N64 = 2n ** 53n - 1n;

export const CODE = {
  NONE: 0, MALFORMED: 101, FRAME_TOO_LARGE: 102, UNKNOWN_TYPE: 103, BAD_HEADER: 104, UNEXPECTED: 105, SEQUENCE: 106,
  TIMEOUT: 107, AUTH_FAILED: 201, UNSUPPORTED_MECHANISM: 202, TLS_REQUIRED: 203, ACCOUNT_REVOKED: 204,
  UNKNOWN_REQUEST: 301, NAME_INVALID: 302, NOT_JOINED: 303, ALREADY_JOINED: 304, ID_CONFLICT: 305, PAYLOAD_INVALID: 306,
  PAYLOAD_TOO_LARGE: 307, FORBIDDEN: 308, NO_SUCH_ROOM: 309, UNKNOWN_FIELD: 310, RANGE_INVALID: 311, ID_EXPIRED: 312,
  RATE_LIMITED: 401, TOO_MANY_ROOMS: 402, ROOM_FULL: 403, SERVER_FULL: 404, SLOW: 405, ABUSE: 406, PRECEDED: 407,
  INTERNAL: 501, UNAVAILABLE: 502, DRAINING: 503, SHUTDOWN: 504, LAGGED: 601, KICKED: 602, BANNED: 603,
  ROOM_CLOSED: 604, LOG_RESET: 605,
};
const CODE_NAMES = new Map(Object.entries(CODE).map(([name, code]) => [code, name]));
export const codeName = (code) => CODE_NAMES.get(code) ?? String(code);
// The codes that carry the flag RETRY (RW-ERROR-1).
export const RETRIED = new Set([106, 107, 401, 403, 404, 405, 407, 501, 502, 503, 504, 601, 604, 605]);

export const FLAG = {
  SEQ: 0x8000, RETRY: 0x0001, VERIFIED: 0x0002, MORE: 0x0004, DURABLE: 0x0010, ROSTER: 0x0010, GAP: 0x0010,
  RESET: 0x0010, DUPLICATE: 0x0010, NEWEST: 0x0010, QUIET: 0x0020, ORDERED: 0x0020,
};

// The table of section 7. request: 'request', 'reply', '0' or 'any'; room: 'ref', '0' or 'any'.
const FRAMES = new Map();
const TYPES = new Map();
function define(type, name, from, request, room, fields = '', { seq = false, extension = null } = {}) {
  const layout = fields.split(' ').filter(Boolean).map((field) => field.split(':'));
  const frame = { type, name, from, request, room, layout, seq, extension };
  FRAMES.set(name, frame);
  TYPES.set(type, frame);
}
define(0x0001, 'HELLO', 'C', 'request', '0', 'name:name8 mechanism:text8 auth:b16');
define(0x0002, 'WELCOME', 'S', 'reply', '0', 'member:u64 name:name8 now_ms:n64 max_body:u32 heartbeat_ms:u32 ' +
  'dedupe_ms:u32 window:u16 max_rooms:u16 auth:b16');
define(0x0003, 'AUTH', 'CS', 'reply', '0', 'data:b16');
define(0x0004, 'ERROR', 'S', 'reply', 'any', 'code:u16 retry_ms:u32 text:text16');
define(0x0005, 'OK', 'S', 'reply', 'any');
define(0x0006, 'PING', 'CS', '0', '0', 'opaque:o8');
define(0x0007, 'PONG', 'CS', '0', '0', 'opaque:o8');
define(0x0008, 'GOAWAY', 'CS', '0', '0', 'code:u16 retry_ms:u32 jitter_ms:u32 text:text16');
define(0x0010, 'JOIN', 'C', 'request', '0', 'name:name8 epoch:u64 since:n64');
define(0x0011, 'JOINED', 'S', 'reply', 'ref', 'epoch:u64 head:n64 start:n64 oldest:n64 members:u32 name:name8');
define(0x0012, 'ROSTER', 'S', '0', 'ref', 'entries:entries');
define(0x0013, 'PRESENCE', 'S', '0', 'ref', 'kind:u8 member:u64 name:name8');
define(0x0014, 'LEAVE', 'C', 'request', 'ref');
define(0x0015, 'EVICTED', 'S', '0', 'ref', 'code:u16 retry_ms:u32 text:text16');
define(0x0020, 'PUBLISH', 'C', 'request', 'ref', 'id:o16 ctype:u8 payload:b32');
define(0x0021, 'ACK', 'S', 'reply', 'ref', 'seq:n64 time_ms:n64');
define(0x0022, 'MESSAGE', 'S', 'any', 'ref', 'seq:n64 time_ms:n64 sender:u64 id:o16 ctype:u8 name:name8 payload:b32',
  { seq: true });
define(0x0040, 'HISTORY', 'C', 'request', 'ref', 'start:n64 end:n64 limit:u16', { extension: 'history' });
define(0x0041, 'HISTORY_END', 'S', 'reply', 'ref', 'start:n64 end:n64 oldest:n64', { extension: 'history' });
define(0x0048, 'STOP', 'C', 'request', '0', '', { extension: 'admin' });
export const layoutOf = (name) => FRAMES.get(name).layout;

// The extension fields of section 5.3.
export const FIELD = { EXTENSION: 0x0001, AGENT: 0x8002, SERVER: 0x8003, MECHANISM: 0x8004 };
const FIELDS = new Map([
  [FIELD.EXTENSION, { frames: ['HELLO', 'WELCOME'], repeatable: true, read: (r) => r.text(r.uint(1)) }],
  [FIELD.AGENT, { frames: ['HELLO', 'WELCOME'] }],
  [FIELD.SERVER, { frames: ['WELCOME'], read: (r) => [r.u64(), r.text(r.uint(1)), r.end()] }],
  [FIELD.MECHANISM, { frames: ['ERROR'], repeatable: true }],
]);
export const isRelayed = (field) => field.type >= 0xc000;

export const extensionField = (name) =>
  ({ type: FIELD.EXTENSION, value: Buffer.concat([Buffer.from([Buffer.byteLength(name)]), Buffer.from(name)]) });
// The names in a frame's EXTENSION fields.
export const extensionsOf = (frame) => frame.fields.filter((field) => field.type === FIELD.EXTENSION)
  .map((field) => field.value.toString('utf8', 1, 1 + field.value[0]));

// An error in a received frame. `fatal` is for servers; for a client every refusal is fatal (RW-CHECK-3).
export class Refusal extends Error {
  constructor(code, text, fatal = true) {
    super(text);
    Object.assign(this, { code, fatal });
  }
}

class BodyReader {
  constructor(body) {
    this.body = body;
    this.offset = 0;
    this.illFormed = false; // a name that is not UTF-8
    this.tooGreat = false; // an n64 above 2^53 - 1
  }

  octets(count) {
    if (this.left < count) throw new Refusal(CODE.MALFORMED, 'the body ends inside a field');
    return this.body.subarray(this.offset, this.offset += count);
  }

  get left() { return this.body.length - this.offset; }
  end() { if (this.left) throw new Refusal(CODE.MALFORMED, 'octets are left over'); }
  uint(count) { return this.octets(count).readUIntBE(0, count); }
  u64() { return this.octets(8).readBigUInt64BE(); }
  text(count) { return this.octets(count).toString('utf8'); }

  n64() {
    const value = this.u64();
    this.tooGreat ||= value > GREATEST_N64;
    return Number(value);
  }

  name() {
    const octets = this.octets(this.uint(1));
    this.illFormed ||= !isUtf8(octets);
    return octets.toString('utf8');
  }

  entries() {
    const entries = [];
    for (let count = this.uint(2); count; count--) {
      entries.push({ member: this.u64(), mflags: this.uint(1), name: this.name() });
    }
    return entries;
  }
}

const READ = {
  u8: (r) => r.uint(1), u16: (r) => r.uint(2), u32: (r) => r.uint(4), u64: (r) => r.u64(), n64: (r) => r.n64(),
  o8: (r) => r.octets(8), o16: (r) => r.octets(16), b16: (r) => r.octets(r.uint(2)), b32: (r) => r.octets(r.uint(4)),
  name8: (r) => r.name(), text8: (r) => r.text(r.uint(1)), text16: (r) => r.text(r.uint(2)), entries: (r) => r.entries(),
};

export const parseHeader = (octets) => ({
  length: octets.readUInt32BE(0), type: octets.readUInt16BE(4), flags: octets.readUInt16BE(6),
  request: octets.readUInt32BE(8), room: octets.readUInt32BE(12),
});

export function checkLength(header, limit) {
  if (header.length > limit) throw new Refusal(CODE.FRAME_TOO_LARGE, `${header.length} octets, the limit is ${limit}`);
}

// The row of section 7 for a type sent by `from` ('C' or 'S'), or undefined if the receiver does not know it.
export function knownType(type, from, extensions) {
  const known = TYPES.get(type);
  return known?.from.includes(from) && (!known.extension || extensions.includes(known.extension)) ? known : undefined;
}

// Decodes a frame sent by `from` ('C' or 'S'), with the checks of section 6.2 in order, after those of length and state.
// An unknown frame that the receiver must ignore is { frame: 'UNKNOWN', body }.
export function decode(header, body, from, extensions) {
  const { type, flags, request, room } = header;
  const known = knownType(type, from, extensions);
  if (!known) {
    if (from === 'C' && request) throw new Refusal(CODE.UNKNOWN_REQUEST, `type ${type}`, false);
    if (type & 0x8000) return { frame: 'UNKNOWN', type, flags, request, room, body };
    throw new Refusal(CODE.UNKNOWN_TYPE, `type ${type}`);
  }
  if ((known.request !== 'any' && (known.request === '0') !== (request === 0)) ||
      (known.room !== 'any' && (known.room === '0') !== (room === 0)) ||
      Boolean(flags & FLAG.SEQ) !== known.seq) {
    throw new Refusal(CODE.BAD_HEADER, `in ${known.name}`);
  }
  const reader = new BodyReader(body);
  const frame = { frame: known.name, flags, request, room, fields: [] };
  for (const [name, kind] of known.layout) frame[name] = READ[kind](reader);
  const unknown = readFields(reader, frame);
  const refuse = (code) => { throw new Refusal(code, `in ${known.name}`, known.request !== 'request'); };
  if (unknown !== undefined) refuse(CODE.UNKNOWN_FIELD);
  if (reader.illFormed) refuse(from === 'C' ? CODE.NAME_INVALID : CODE.MALFORMED);
  if (reader.tooGreat) refuse(from === 'C' ? CODE.RANGE_INVALID : CODE.MALFORMED);
  return frame;
}

// Reads the extension fields; returns the type of the first unknown critical one.
function readFields(reader, frame) {
  const seen = new Set();
  let unknown;
  while (reader.left) {
    const type = reader.uint(2);
    const value = reader.octets(reader.uint(2));
    const known = FIELDS.get(type);
    if (known?.frames.includes(frame.frame)) {
      if (seen.has(type) && !known.repeatable) throw new Refusal(CODE.MALFORMED, `field ${type} twice`);
      known.read?.(new BodyReader(value));
    } else if (!(type & 0x8000)) {
      unknown ??= type;
    }
    seen.add(type);
    frame.fields.push({ type, value });
  }
  return unknown;
}

function uint(count, value) {
  const octets = Buffer.alloc(count);
  if (count === 8) octets.writeBigUInt64BE(BigInt(value));
  else octets.writeUIntBE(value, 0, count);
  return octets;
}

function counted(count, value) {
  const octets = Buffer.isBuffer(value) ? value : Buffer.from(value ?? '');
  return Buffer.concat([uint(count, octets.length), octets]);
}

const WRITE = {
  u8: (v) => uint(1, v), u16: (v) => uint(2, v), u32: (v) => uint(4, v), u64: (v) => uint(8, v), n64: (v) => uint(8, v),
  o8: (v) => v, o16: (v) => v, b16: (v) => counted(2, v), b32: (v) => counted(4, v),
  name8: (v) => counted(1, v), text8: (v) => counted(1, v), text16: (v) => counted(2, v),
  entries: (v) => Buffer.concat([uint(2, v.length), ...v.flatMap((entry) =>
    [uint(8, entry.member), uint(1, entry.mflags ?? 0), counted(1, entry.name)])]),
};

export function encodeRaw(type, { flags = 0, request = 0, room = 0, body = Buffer.alloc(0) }) {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(body.length, 0);
  header.writeUInt16BE(type, 4);
  header.writeUInt16BE(flags, 6);
  header.writeUInt32BE(request, 8);
  header.writeUInt32BE(room, 12);
  return Buffer.concat([header, body]);
}

// Encodes a frame by name. Missing numbers are 0, missing texts and octets empty.
export function encode(name, values = {}) {
  const { type, layout, seq } = FRAMES.get(name);
  const parts = layout.map(([field, kind]) => WRITE[kind](values[field] ?? (/^[un]\d/.test(kind) ? 0 : undefined)));
  for (const field of values.fields ?? []) parts.push(uint(2, field.type), counted(2, field.value));
  const flags = (values.flags ?? 0) | (seq ? FLAG.SEQ : 0);
  return encodeRaw(type, { ...values, flags, body: Buffer.concat(parts) });
}

export const clientPreface = (lowest = 1, highest = 1) => Buffer.from([...MAGIC, lowest, highest, 0, 0]);
export const serverPreface = (version) => Buffer.from([...MAGIC, version, 0, 0, 0]);

// Buffers octets as they arrive, cut anywhere, and returns them as a preface or as frames.
export class Inbox {
  constructor() {
    this.chunks = [];
    this.size = 0;
    this.header = null; // of the frame whose body has not arrived yet
  }

  push(octets) {
    this.chunks.push(octets);
    this.size += octets.length;
  }

  get inFrame() { return this.header !== null || this.size > 0; }

  peek(count) {
    if (count && this.chunks[0]?.length < count) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0]?.subarray(0, count) ?? Buffer.alloc(0);
  }

  take(count) {
    if (this.size < count) return null;
    const octets = this.peek(count);
    this.size -= count;
    if (count) this.chunks[0] = this.chunks[0].subarray(count);
    if (this.chunks[0]?.length === 0) this.chunks.shift();
    return octets;
  }

  // The next eight octets; null while they have not arrived; false as soon as they cannot be a preface.
  preface() {
    const start = this.peek(Math.min(this.size, 4));
    return MAGIC.subarray(0, start.length).equals(start) ? this.take(8) : false;
  }

  // The next whole frame as [header, body], or null. The length is checked before the body is buffered.
  frame(limit) {
    if (!this.header) {
      const octets = this.take(16);
      if (!octets) return null;
      this.header = parseHeader(octets);
    }
    checkLength(this.header, limit);
    const body = this.take(this.header.length);
    if (!body) return null;
    const { header } = this;
    this.header = null;
    return [header, body];
  }
}
