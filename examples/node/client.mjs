// A Roomwire session that outlives its connections (SPEC.md, sections 8.7 and 9 to 11):
//
//   const client = new Client({ host: 'localhost', port: 7117, name: 'ada' });
//   client.on('message', (room, message) => console.log(room.name, message.name, String(message.payload)));
//   client.connect();
//   await client.join('lobby');
//   const { seq } = await client.publish('lobby', 'hello');
//
// Events: 'open' (WELCOME), 'joined', 'gap', 'message', 'presence', 'roster', 'evicted' (each with a room first),
// 'closed' (the reason, and the milliseconds until it connects again, or null).
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { CODE, FLAG, Refusal, codeName } from './codec.mjs';
import { Connection } from './connection.mjs';

// A request that failed. `code` is null if the server sent none. With `unknown`, the message may have been appended.
export class RequestError extends Error {
  constructor(code, text, unknown = false) {
    super(unknown ? 'outcome unknown' : text || codeName(code));
    Object.assign(this, { code, unknown });
  }
}
const FIRST_BOUND_MS = 500;
const isFinal = (code) => code === CODE.ABUSE || (code >= 200 && code < 400);

// A room that the application wants to be in, across connections.
class Room {
  constructor(name, { newest = 0, epoch = 0n, since = 0, roster = true }) {
    Object.assign(this, { name, newest, wantsRoster: roster, wanted: true, leaving: false, state: 'OUT', ref: null });
    Object.assign(this, { epoch, seq: since, shown: since, head: 0, lagged: 0 });
    this.roster = new Map(); // member -> { name, verified }
    this.pending = []; // publishes without an outcome, in the order of the application's calls
    this.whenIn = []; // requests for history that wait until the room is joined
    this.joinNotBefore = 0;
    this.publishNotBefore = 0;
    this.joined = withResolvers();
    this.left = withResolvers();
    this.joined.promise.catch(() => {});
  }
}

const lengthOf = ({ payload, fields }) => fields.reduce((sum, { value }) => sum + 4 + value.length, payload.length);

function withResolvers() {
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return result;
}

export class Client extends EventEmitter {
  constructor({ reconnect = true, ...options }) {
    super();
    Object.assign(this, { reconnect, options, bound: FIRST_BOUND_MS, closing: false });
    this.rooms = new Map(); // by the application's name
    this.refs = new Map(); // the joined rooms of this connection
    this.timers = new Set();
  }

  connect() {
    this.closing = false;
    this.connection = new Connection({ extensions: ['history'], ...this.options });
    this.connection.on('open', (welcome) => {
      this.emit('open', welcome);
      for (const room of this.rooms.values()) this.sendJoin(room);
    });
    this.connection.on('stream', (frame) => this.onStream(frame));
    this.connection.on('answered', () => this.rooms.forEach((room) => this.flush(room)));
    this.connection.on('closed', (end) => this.onClosed(end));
  }

  // Sends GOAWAY(NONE) and does not connect again.
  async close() {
    this.closing = true;
    this.timers.forEach(clearTimeout);
    if (!this.connection || this.connection.state === 'CLOSED') return;
    const closed = new Promise((resolve) => { this.connection.once('closed', resolve); });
    this.connection.close();
    await closed;
  }

  later(ms, action) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, ms);
    this.timers.add(timer);
  }

  // ---- rooms

  // `newest` asks for so many of the newest messages; `epoch` and `since` are a cursor to go on from. Resolves when the
  // room is joined for the first time.
  join(name, options = {}) {
    const old = this.rooms.get(name);
    if (old?.leaving) return old.left.promise.then(() => this.join(name, options));
    if (old) return Promise.reject(new RequestError(CODE.ALREADY_JOINED));
    const room = new Room(name, options);
    this.rooms.set(name, room);
    this.sendJoin(room);
    return room.joined.promise;
  }

  // Leaves once all publishes of the room have an outcome; resolves when the membership has ended.
  leave(name) {
    const room = this.wantedRoom(name);
    room.leaving = true;
    this.leaveWhenDone(room);
    return room.left.promise;
  }

  leaveWhenDone(room) {
    if (!room.leaving || !room.wanted || room.pending.length) return;
    room.wanted = false;
    this.sendLeave(room);
  }

  wantedRoom(name) {
    const room = this.rooms.get(name);
    if (!room?.wanted || room.leaving) throw new RequestError(CODE.NOT_JOINED);
    return room;
  }

  // Drops a room for good.
  forget(room, code, text) {
    room.wanted = false;
    this.rooms.delete(room.name);
    room.joined.reject(new RequestError(code, text));
    room.left.resolve();
    room.whenIn.splice(0).forEach(({ reject }) => reject(new RequestError(code, text)));
    for (const publish of [...room.pending]) if (!publish.inFlight) this.giveUp(room, publish, code, text);
  }

  sendJoin(room) {
    if (room.state !== 'OUT' || !room.wanted || this.connection?.state !== 'OPEN') return;
    const wait = room.joinNotBefore - performance.now();
    if (wait > 0) {
      this.later(wait, () => this.sendJoin(room));
      return;
    }
    room.state = 'JOINING';
    this.connection.request('JOIN', () => {
      const epoch = room.lagged < 2 ? room.epoch : 0n; // RW-LAG-4
      const since = room.epoch === 0n ? room.newest : epoch && room.seq;
      return { name: room.name, epoch, since, flags: room.wantsRoster ? FLAG.ROSTER : 0 };
    }, (reply) => this.onJoinAnswered(room, reply));
  }

  onJoinAnswered(room, reply) {
    room.state = 'OUT';
    if (reply?.frame === 'JOINED') {
      this.onJoined(room, reply);
    } else if (reply && reply.flags & FLAG.RETRY && room.wanted) {
      room.joinNotBefore = performance.now() + reply.retry_ms;
      this.sendJoin(room);
    } else if (reply || !room.wanted) {
      this.forget(room, reply?.code ?? CODE.NOT_JOINED, reply?.text);
    }
  }

  onJoined(room, joined) {
    if (joined.epoch === 0n || joined.start === 0) throw new Refusal(CODE.MALFORMED, 'JOINED with a 0');
    if (this.refs.has(joined.room)) throw new Refusal(CODE.UNEXPECTED, 'JOINED of a room that it is in');
    const before = { epoch: room.epoch, seq: room.seq };
    const sameLog = before.epoch === joined.epoch;
    const gap = joined.flags & FLAG.GAP || (before.epoch !== 0n && (!sameLog || joined.start > before.seq + 1));
    if (!sameLog || joined.flags & FLAG.GAP) room.shown = joined.start - 1;
    Object.assign(room, { state: 'IN', ref: joined.room, epoch: joined.epoch, seq: joined.start - 1, head: joined.head });
    Object.assign(room, { lagged: room.lagged < 2 ? room.lagged : 0, refused: false, ordered: false });
    room.quiet = Boolean(joined.flags & FLAG.QUIET);
    room.roster.clear();
    this.refs.set(room.ref, room);
    this.emit('joined', room, joined);
    if (gap) this.emit('gap', room, { before, epoch: joined.epoch, start: joined.start });
    room.joined.resolve(room);
    if (!room.wanted) this.sendLeave(room);
    room.whenIn.splice(0).forEach(({ send }) => send());
    this.flush(room);
  }

  sendLeave(room) {
    if (room.state === 'IN') {
      room.state = 'LEAVING';
      this.connection.request('LEAVE', { room: room.ref }, (reply) => this.onLeaveAnswered(room, reply));
    } else if (room.state === 'OUT') {
      this.forget(room, CODE.NOT_JOINED);
    }
  }

  onLeaveAnswered(room, reply) {
    if (reply?.frame === 'ERROR' && reply.code !== CODE.NOT_JOINED && room.state === 'LEAVING') {
      room.state = 'IN';
      this.later(reply.retry_ms || 1000, () => this.sendLeave(room));
      return;
    }
    this.out(room);
    this.forget(room, CODE.NOT_JOINED);
  }

  out(room) {
    this.refs.delete(room.ref);
    Object.assign(room, { state: 'OUT', ref: null });
  }

  // ---- the stream

  onStream(frame) {
    const room = this.refs.get(frame.room);
    if (frame.frame === 'UNKNOWN') {
      if (room && !frame.request && this.advance(room, frame.seq)) this.flush(room);
      return;
    }
    if (!room) throw new Refusal(CODE.UNEXPECTED, `${frame.frame} of a room that it is not in`);
    this[`on${frame.frame}`](room, frame);
  }

  // Moves the cursor; returns false for a seq that it has passed already.
  advance(room, seq) {
    if (seq > room.seq + 1) throw new Refusal(CODE.SEQUENCE, `${seq} after ${room.seq}`);
    if (seq <= room.seq) return false;
    room.seq = seq;
    if (seq > room.head) room.lagged = 0;
    return true;
  }

  onMESSAGE(room, message) {
    if (!this.advance(room, message.seq)) return;
    this.recognise(room, message);
    if (message.seq > room.shown) {
      room.shown = message.seq;
      this.emit('message', room, message);
    }
    this.flush(room);
  }

  onROSTER(room, { flags, entries }) {
    if (flags & FLAG.RESET) room.roster.clear();
    for (const { member, name, mflags } of entries) room.roster.set(member, { name, verified: Boolean(mflags & 0x02) });
    if (!(flags & FLAG.MORE)) this.emit('roster', room);
  }

  onPRESENCE(room, presence) {
    const { kind, member, name, flags } = presence;
    if (kind === 1) room.roster.set(member, { name, verified: Boolean(flags & FLAG.VERIFIED) });
    else if (kind === 2 || kind === 3) room.roster.delete(member);
    else if (kind === 4) room.roster.clear();
    else return;
    room.quiet ||= kind === 4;
    this.emit('presence', room, presence);
  }

  onEVICTED(room, evicted) {
    this.out(room);
    if (evicted.code === CODE.LAGGED) room.lagged += 1;
    this.emit('evicted', room, evicted);
    if (evicted.flags & FLAG.RETRY && room.wanted) {
      room.joinNotBefore = performance.now() + evicted.retry_ms;
      this.sendJoin(room);
    } else if (room.wanted) {
      this.forget(room, evicted.code, evicted.text);
    }
  }

  // ---- publishing

  // Resolves to the place of the message, { id, epoch, seq, time_ms, duplicate }. The PUBLISH is repeated, with the same
  // id, until there is an outcome. `payload` is a string or, with another ctype than 0, a Buffer.
  publish(name, payload, { ctype = 0, fields = [] } = {}) {
    const room = this.wantedRoom(name);
    return new Promise((resolve, reject) => {
      room.pending.push({ ctype, payload: Buffer.from(payload), fields, resolve, reject, id: null, inFlight: false });
      this.flush(room);
    });
  }

  // Sends the room's waiting publishes, in order (section 10.3).
  flush(room) {
    if (room.state !== 'IN' || this.connection.state !== 'OPEN') return;
    this.giveUpLost(room);
    if (room.refused && room.pending.some((publish) => publish.inFlight)) return;
    const wait = room.publishNotBefore - performance.now();
    if (wait > 0 && room.pending.length) {
      if (!room.waiting) this.later(wait, () => { room.waiting = false; this.flush(room); });
      room.waiting = true;
      return;
    }
    if (room.refused) Object.assign(room, { refused: false, ordered: false });
    for (const publish of [...room.pending]) {
      if (publish.inFlight) continue;
      if (this.mayNotRepeat(publish)) return;
      const alone = room.alone && room.pending.some((other) => other.inFlight);
      if (this.connection.room <= 0 || alone) return;
      if (this.tooLong(publish)) this.giveUp(room, publish, CODE.PAYLOAD_TOO_LARGE);
      else this.sendPublish(room, publish);
    }
  }

  sendPublish(room, publish) {
    publish.inFlight = true;
    publish.id ??= this.newId();
    const { id, ctype, payload, fields } = publish;
    const flags = room.ordered ? FLAG.ORDERED : 0;
    room.ordered = true;
    const { ref } = room;
    this.connection.request('PUBLISH', { room: ref, flags, id, ctype, payload, fields }, (reply) => {
      publish.inFlight = false;
      this.onPublishAnswered(room, publish, reply, ref);
    });
  }

  newId() {
    const time = Buffer.alloc(6);
    time.writeUIntBE(this.connection.now(), 0, 6);
    return Buffer.concat([time, randomBytes(10)]);
  }

  onPublishAnswered(room, publish, reply, ref) {
    if (!room.pending.includes(publish)) return; // its message has settled it
    if (!reply) {
      publish.lost = true; // a copy has no reply
      if (this.closing || !room.wanted) this.giveUp(room, publish, null);
    } else if (reply.frame === 'ACK') {
      room.alone = false;
      this.settle(room, publish, { ...reply, duplicate: Boolean(reply.flags & FLAG.DUPLICATE) });
    } else {
      const stillIn = room.state === 'IN' && room.ref === ref;
      if (stillIn) room.refused = true;
      if (reply.code === CODE.RATE_LIMITED) room.alone = true;
      const again = room.wanted && (reply.flags & FLAG.RETRY || (reply.code === CODE.NOT_JOINED && !stillIn));
      if (again) room.publishNotBefore = Math.max(room.publishNotBefore, performance.now() + reply.retry_ms);
      else if (publish.lost && room.wanted) publish.final = [reply.code, reply.text];
      else this.giveUp(room, publish, reply.code, reply.text);
    }
  }

  tooLong(publish) {
    return lengthOf(publish) > this.connection.limit - 256;
  }

  // A lost publish is not repeated without deduplication, which could make a second message (RW-DEDUPE-7), nor when a
  // repeat was refused for good or is too long by now.
  mayNotRepeat(publish) {
    return publish.lost && (publish.final || !this.connection.welcome.dedupe_ms || this.tooLong(publish));
  }

  // Lost publishes that may not be repeated fail when their message has not come in the stream up to head (RW-DEDUPE-8).
  giveUpLost(room) {
    if (room.seq < room.head) return;
    for (const publish of room.pending.filter((each) => !each.inFlight && this.mayNotRepeat(each))) {
      this.giveUp(room, publish, ...(publish.final ?? [this.tooLong(publish) ? CODE.PAYLOAD_TOO_LARGE : null]));
    }
  }

  // A message with the id of a pending publish acknowledges it (RW-RECOVER-2).
  recognise(room, message) {
    const publish = room.pending.find(({ id }) => id?.equals(message.id));
    if (publish) this.settle(room, publish, { ...message, duplicate: true });
  }

  settle(room, publish, { seq, time_ms, duplicate }) {
    room.pending.splice(room.pending.indexOf(publish), 1);
    this.leaveWhenDone(room);
    publish.resolve({ id: publish.id, epoch: room.epoch, seq, time_ms, duplicate });
  }

  giveUp(room, publish, code, text) {
    room.pending.splice(room.pending.indexOf(publish), 1);
    this.leaveWhenDone(room);
    publish.reject(new RequestError(code, text, Boolean(publish.lost)));
  }

  // Resolves to { epoch, messages, start, end, oldest, more } (section 7.18). Waits until the room is joined.
  history(name, { start = 1, end = 0, limit = 0, newest = false } = {}) {
    const room = this.wantedRoom(name);
    return new Promise((resolve, reject) => {
      const answered = (reply, messages) => {
        const { code = null, text = 'connection lost' } = reply ?? {};
        if (reply?.frame !== 'HISTORY_END') reject(new RequestError(code, text));
        else resolve({ ...reply, epoch: room.epoch, messages, more: Boolean(reply.flags & FLAG.MORE) });
      };
      const send = () => {
        const values = { room: room.ref, flags: newest ? FLAG.NEWEST : 0, start, end, limit };
        this.connection.request('HISTORY', values, answered);
      };
      if (room.state === 'IN') send();
      else room.whenIn.push({ send, reject });
    });
  }

  // ---- connecting again

  onClosed(end) {
    const { opened } = this.connection;
    for (const room of [...this.refs.values()]) this.out(room);
    const wait = this.closing || !this.reconnect ? null : this.waitAfter(end, opened ? performance.now() - opened : 0);
    for (const room of [...this.rooms.values()]) {
      if (room.state === 'JOINING') room.state = 'OUT';
      if (wait === null || !room.wanted) this.forget(room, null, 'the connection has ended');
    }
    this.emit('closed', end, wait);
    if (wait !== null) this.later(wait, () => this.connect());
  }

  // The milliseconds to wait before connecting again, or null to stay disconnected (section 8.7).
  waitAfter({ failure, word, version }, openFor) {
    const retry = word && word.flags & FLAG.RETRY;
    if (version === 0 || failure === CODE.AUTH_FAILED || (word && !retry && isFinal(word.code))) return null;
    const orderly = failure === null && [CODE.NONE, CODE.DRAINING, CODE.SHUTDOWN].includes(word?.code);
    if (openFor >= 60000) this.bound = 1000;
    else if (!orderly) this.bound = Math.min(60000, this.bound * 2);
    const asked = retry ? Math.min(300000, word.retry_ms + Math.random() * (word.jitter_ms ?? 0)) : 0;
    return Math.max(asked, Math.random() * this.bound);
  }
}
