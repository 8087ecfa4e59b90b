// One connection of a client (SPEC.md, sections 5.1, 6 and 8.1): prefaces, HELLO, requests and their replies in order,
// heartbeat, draining, closing. It knows nothing of rooms; client.mjs does.
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import net from 'node:net';
import {
  CODE, FIELD, FLAG, HELLO_MAX_BODY, Inbox, RETRIED, Refusal, clientPreface, codeName, decode, encode, extensionField,
  extensionsOf,
} from './codec.mjs';

const FINAL = { HELLO: 'WELCOME', JOIN: 'JOINED', LEAVE: 'OK', PUBLISH: 'ACK', HISTORY: 'HISTORY_END', STOP: 'OK' };
const STREAM = ['MESSAGE', 'ROSTER', 'PRESENCE', 'EVICTED'];
const TICKS = 4; // a heartbeat interval

// Events: 'open' (WELCOME), 'stream' (a frame that is no reply), 'answered', 'closed' (with `end`).
export class Connection extends EventEmitter {
  constructor({ host, port, name, extensions = [], handshake_ms = 10000, linger_ms = 2000 }) {
    super();
    Object.assign(this, { name, offered: extensions, linger_ms, state: 'CONNECTING', extensions: [] });
    this.inbox = new Inbox();
    this.limit = HELLO_MAX_BODY;
    this.lastRequest = 0;
    this.unanswered = []; // requests, in the order of sending
    this.queue = []; // requests that wait for the window
    this.silentTicks = 0;
    // Why it ended: `failure` is the code of this client, `word` the server's last GOAWAY, or its ERROR to HELLO.
    this.end = { failure: null, word: null, version: null, text: '' };
    this.timer = setTimeout(() => this.timeOut(), handshake_ms);
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.on('connect', () => {
      this.state = 'PREFACE';
      this.socket.write(clientPreface());
    });
    this.socket.on('data', (octets) => this.receive(octets));
    this.socket.on('error', (error) => { this.end.text ||= error.message; });
    this.socket.on('close', () => this.closed());
  }

  // ---- requests

  // Sends a request as soon as the window allows; `values` may be a function that is called then. `answered` is called
  // with the final reply and the MESSAGEs before it, or with null if the connection ends first.
  request(frame, values, answered) {
    this.queue.push({ frame, values, answered, messages: [] });
    this.pump();
  }

  // How many more requests could be sent now.
  get room() { return this.state === 'OPEN' ? this.welcome.window - this.unanswered.length - this.queue.length : 0; }

  pump() {
    while (this.queue.length && this.state === 'OPEN' && this.unanswered.length < this.welcome.window) {
      const request = this.queue.shift();
      this.sendRequest(request, typeof request.values === 'function' ? request.values() : request.values);
    }
  }

  sendRequest(request, values) {
    this.lastRequest = this.lastRequest % 0xffffffff + 1;
    request.number = this.lastRequest;
    this.unanswered.push(request);
    this.send(request.frame, { ...values, request: request.number });
  }

  send(frame, values) {
    this.sentSince = true;
    this.socket.write(encode(frame, values));
  }

  // ---- receiving

  receive(octets) {
    this.silentTicks = 0;
    this.inbox.push(octets);
    if (this.state === 'PREFACE' && !this.readPreface()) return;
    for (let whole = true; whole && this.state !== 'CLOSED';) {
      try {
        const next = this.inbox.frame(this.limit);
        whole = next !== null;
        if (next) this.handle(...next);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        if (error.code === CODE.FRAME_TOO_LARGE) this.inbox = new Inbox();
        if (this.state !== 'CLOSING') this.fail(error.code, error.message);
      }
    }
  }

  readPreface() {
    const preface = this.inbox.preface();
    if (preface === null) return false;
    if (preface === false || preface[4] !== 1) {
      this.end.version = preface ? preface[4] : null;
      this.end.text = preface ? `the server chose version ${preface[4]}` : 'not a Roomwire server';
      this.socket.destroy();
      return false;
    }
    this.state = 'HELLO_SENT';
    this.sendRequest({ frame: 'HELLO', answered: (reply) => this.helloAnswered(reply), messages: [] }, {
      name: this.name, mechanism: 'ANONYMOUS',
      fields: [...this.offered.map(extensionField), { type: FIELD.AGENT, value: Buffer.from('roomwire-node-example') }],
    });
    return true;
  }

  handle(header, body) {
    if (this.state === 'CLOSING') {
      if (header.type !== 0x0008) return;
      this.socket.end();
      this.end.word = decode(header, body, 'S', []);
      return;
    }
    const frame = decode(header, body, 'S', this.extensions);
    const early = this.state === 'HELLO_SENT' && !['WELCOME', 'AUTH', 'ERROR', 'GOAWAY', 'UNKNOWN'].includes(frame.frame);
    if (early) throw new Refusal(CODE.UNEXPECTED, `${frame.frame} before WELCOME`);
    if (frame.frame === 'PING') this.send('PONG', { opaque: frame.opaque });
    else if (frame.frame === 'GOAWAY') this.goneAway(frame);
    else if (frame.frame === 'MESSAGE' && frame.request) this.partOfReply(frame, 'HISTORY').messages.push(frame);
    else if (frame.frame === 'UNKNOWN' && frame.flags & FLAG.SEQ) this.emit('stream', sequenced(frame));
    else if (STREAM.includes(frame.frame)) this.emit('stream', frame);
    else if (!['PONG', 'UNKNOWN'].includes(frame.frame)) this.reply(frame);
  }

  // The request that a frame answers. Replies arrive in the order of the requests (RW-REQUEST-8).
  partOfReply(frame, wanted) {
    const [first] = this.unanswered;
    if (first?.number !== frame.request || (wanted && first.frame !== wanted)) {
      throw new Refusal(CODE.UNEXPECTED, `${frame.frame} answers no request`);
    }
    return first;
  }

  reply(frame) {
    const request = this.partOfReply(frame);
    if (frame.frame !== 'ERROR' && frame.frame !== FINAL[request.frame]) {
      const code = frame.frame === 'AUTH' && request.frame === 'HELLO' ? CODE.AUTH_FAILED : CODE.UNEXPECTED;
      throw new Refusal(code, `${frame.frame} does not answer ${request.frame}`);
    }
    this.unanswered.shift();
    request.answered(frame, request.messages);
    this.pump();
    this.emit('answered');
    if (this.state === 'DRAINING' && !this.unanswered.length) this.goaway();
  }

  helloAnswered(reply) {
    if (reply?.frame === 'ERROR') {
      this.end.word = reply;
      this.linger();
    } else if (reply) {
      const { heartbeat_ms, max_body, window, max_rooms } = reply;
      const sane = heartbeat_ms >= 1000 && max_body >= HELLO_MAX_BODY && window && max_rooms;
      if (!sane) throw new Refusal(CODE.MALFORMED, 'a limit out of its range');
      clearTimeout(this.timer);
      Object.assign(this, { state: 'OPEN', welcome: reply, limit: max_body, opened: performance.now() });
      this.extensions = extensionsOf(reply).filter((name) => this.offered.includes(name));
      this.beat = setInterval(() => this.tick(), heartbeat_ms / TICKS);
      this.emit('open', reply);
    }
  }

  // The server's clock.
  now() { return Math.floor(this.welcome.now_ms + performance.now() - this.opened); }

  // Counts ticks, not time: while this process does not run, it cannot read either, and no ticks pass (RW-HEARTBEAT-3).
  tick() {
    if (++this.silentTicks > 2 * TICKS) this.timeOut();
    else if (!this.sentSince) this.send('PING', { opaque: randomBytes(8) });
    this.sentSince = false;
  }

  // ---- ending

  goneAway(frame) {
    this.end.word = frame;
    if (frame.code === CODE.DRAINING && this.state === 'OPEN') {
      this.state = 'DRAINING';
      if (!this.unanswered.length) this.goaway();
    } else {
      this.goaway();
      this.socket.end();
    }
  }

  // Sends GOAWAY, and waits for the server's GOAWAY or for the linger time.
  goaway(code = CODE.NONE, text = '') {
    this.send('GOAWAY', { code, text, flags: RETRIED.has(code) ? FLAG.RETRY : 0 });
    this.linger();
  }

  linger() {
    this.state = 'CLOSING';
    clearTimeout(this.timer);
    clearInterval(this.beat);
    this.timer = setTimeout(() => this.socket.destroy(), this.linger_ms);
  }

  fail(code, text) {
    this.end.failure = code;
    this.end.text = `${codeName(code)}: ${text}`;
    this.goaway(code, text);
  }

  timeOut() {
    if (['CONNECTING', 'PREFACE'].includes(this.state)) this.socket.destroy();
    else this.fail(CODE.TIMEOUT, 'the server is silent');
  }

  // Called by the application.
  close() {
    if (['HELLO_SENT', 'OPEN', 'DRAINING'].includes(this.state)) this.goaway();
    else if (this.state !== 'CLOSING') this.socket.destroy();
  }

  closed() {
    clearTimeout(this.timer);
    clearInterval(this.beat);
    this.state = 'CLOSED';
    for (const { answered } of [...this.unanswered.splice(0), ...this.queue.splice(0)]) answered(null, []);
    this.emit('closed', this.end);
  }
}

// An ignorable unknown frame of a room's stream moves the cursor as a MESSAGE does (RW-TYPE-5, RW-TYPE-6).
function sequenced(frame) {
  const seq = frame.body.length < 8 ? null : Number(frame.body.readBigUInt64BE(0));
  if (seq === null || seq > Number.MAX_SAFE_INTEGER) throw new Refusal(CODE.MALFORMED, 'SEQ without a seq');
  return { ...frame, seq };
}
