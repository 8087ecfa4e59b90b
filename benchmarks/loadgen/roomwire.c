/* Roomwire: SPEC.md, sections 5 and 7. */
#include "load.h"
#include <stdio.h>

enum { HELLO = 0x01, WELCOME = 0x02, PING = 0x06, PONG = 0x07, JOIN = 0x10, JOINED = 0x11, ROSTER = 0x12,
       PRESENCE = 0x13, PUBLISH = 0x20, ACK = 0x21, MESSAGE = 0x22 };
enum { HEADER = 16, MESSAGE_NAME = 41 }; /* octets before the length of a MESSAGE's name */
enum { HELLO_REQUEST = 1, JOIN_REQUEST, FIRST_PUBLISH };


static void rw_header(uint8_t *p, size_t length, unsigned type, uint64_t request, uint32_t room) {
    put32(p, length);
    put32(p + 4, (uint64_t)type << 16);
    put32(p + 8, request);
    put32(p + 12, room);
}

static void rw_greet(struct client *c) {
    transmit(c, (const uint8_t *)"\xF5RWP\1\1\0\0", 8);
}

static void rw_hello(struct client *c) {
    uint8_t frame[128];
    int name = snprintf((char *)frame + HEADER + 1, 32, "load-%u", c->number);
    size_t length = 1 + (size_t)name;
    frame[HEADER] = (uint8_t)name;
    memcpy(frame + HEADER + length, "\11ANONYMOUS\0", 12);
    length += 12;
    rw_header(frame, length, HELLO, HELLO_REQUEST, 0);
    transmit(c, frame, HEADER + length);
}

static void rw_join(struct client *c) {
    uint8_t frame[128];
    int name = snprintf((char *)frame + HEADER + 1, 32, "room-%u", c->room);
    size_t length = 1 + (size_t)name + 16;
    frame[HEADER] = (uint8_t)name;
    memset(frame + HEADER + 1 + name, 0, 16); /* no cursor, no old messages */
    rw_header(frame, length, JOIN, JOIN_REQUEST, 0);
    transmit(c, frame, HEADER + length);
}

static void rw_ack(struct client *c, const uint8_t *frame) {
    uint64_t seq = u64(frame + HEADER);
    if (u32(frame + 8) != (uint32_t)(c->acked + FIRST_PUBLISH)) fail("client %u: an ACK out of order", c->number);
    if (seq <= c->last_seq)
        fail("client %u: ACK of seq %lu after %lu", c->number, (unsigned long)seq, (unsigned long)c->last_seq);
    c->last_seq = seq;
    acknowledged(c, 1);
}

static void rw_message(struct client *c, const uint8_t *frame, size_t length) {
    const uint8_t *body = frame + HEADER;
    if (u16(frame + 6) != 0x8000 || u32(frame + 8) || u32(frame + 12) != c->ref)
        fail("client %u: a MESSAGE with an unexpected header", c->number);
    if (u64(body) != c->seen + 1)
        fail("client %u: seq %lu where %lu was due", c->number, (unsigned long)u64(body), (unsigned long)c->seen + 1);
    size_t payload = MESSAGE_NAME + 1 + body[MESSAGE_NAME] + 4;
    if (payload + u32(body + payload - 4) != length) fail("client %u: a MESSAGE of a wrong length", c->number);
    delivered(c, (const char *)body + payload, length - payload);
}

static void rw_control(struct client *c, const uint8_t *frame, size_t length, unsigned type) {
    const uint8_t *body = frame + HEADER;
    if (type == WELCOME && c->step == 1) {
        c->step = 2;
        c->clock_ms = (int64_t)u64(body + 9 + body[8]) - wall_ms();
        if (u16(body + 9 + body[8] + 20) < window_size()) fail("the server's window is too small");
        if (in_rooms(c)) rw_join(c);
        else ready(c);
    } else if (type == JOINED && c->step == 2) {
        c->step = 3;
        c->ref = (uint32_t)u32(frame + 12);
        if (u64(body + 8) != 0 || u64(body + 16) != 1) fail("client %u: room-%u is not new", c->number, c->room);
        ready(c);
    } else if (type == PING) {
        uint8_t pong[HEADER + 8];
        rw_header(pong, 8, PONG, 0, 0);
        memcpy(pong + HEADER, body, 8);
        transmit(c, pong, sizeof pong);
    } else if (type != PRESENCE && type != ROSTER) {
        unsigned code = length >= 2 ? (unsigned)u16(body) : 0;
        fail("client %u: frame 0x%04x with code %u", c->number, type, code);
    }
}

static size_t rw_parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    if (c->step == 0) {
        if (size < 8) return 0;
        if (memcmp(data, "\xF5RWP\1", 5)) fail("the server does not speak Roomwire/1");
        c->step = 1;
        at = 8;
        rw_hello(c);
    }
    while (size - at >= HEADER) {
        const uint8_t *frame = data + at;
        size_t length = u32(frame);
        if (size - at - HEADER < length) break;
        unsigned type = (unsigned)u16(frame + 4);
        if (type == MESSAGE) rw_message(c, frame, length);
        else if (type == ACK) rw_ack(c, frame);
        else rw_control(c, frame, length, type);
        at += HEADER + length;
    }
    return at;
}

static size_t rw_publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    size_t size = payload_size();
    uint64_t time = htobe64((uint64_t)(now_ms + c->clock_ms) << 16);
    rw_header(to, 21 + size, PUBLISH, (uint32_t)(c->sent - 1 + FIRST_PUBLISH), c->ref);
    uint8_t *id = to + HEADER;
    memcpy(id, &time, 6);
    memcpy(id + 6, salt, sizeof salt);
    put32(id + 8, c->number);
    put32(id + 12, c->sent);
    id[16] = 0; /* text */
    put32(id + 17, size);
    memcpy(id + 21, payload, size);
    return HEADER + 21 + size;
}

const struct protocol roomwire = {
    "roomwire", .acks = true, .echoes = true, .ordered = true, .greet = rw_greet, .parse = rw_parse,
    .publish = rw_publish};
