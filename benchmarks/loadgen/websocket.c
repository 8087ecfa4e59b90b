/* WebSocket, one path a room: the server broadcasts each message to all clients of its path. */
#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>

static void greet(struct client *c) {
    char text[256];
    int size = snprintf(text, sizeof text,
                        "GET /%u HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n", c->room);
    transmit(c, (const uint8_t *)text, (size_t)size);
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    if (c->step == 0) {
        const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) return 0;
        if (memcmp(data, "HTTP/1.1 101", 12)) fail("client %u: the server said %.20s", c->number, (const char *)data);
        c->step = 1;
        at = (size_t)(end - data) + 4;
        ready(c);
    }
    while (size - at >= 2) {
        const uint8_t *frame = data + at;
        size_t length = frame[1] & 127, head = length == 127 ? 10 : length == 126 ? 4 : 2;
        if (size - at < head) break;
        if (length >= 126) length = head == 4 ? u16(frame + 2) : u64(frame + 2);
        if (size - at - head < length) break;
        unsigned kind = frame[0] & 15;
        if (kind == 1 || kind == 2) delivered(c, (const char *)frame + head, length);
        else if (kind != 9) fail("client %u: a WebSocket frame of kind %u", c->number, kind);
        at += head + length;
    }
    return at;
}

static size_t publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    size_t size = payload_size(), at = 2;
    (void)c, (void)now_ms;
    to[0] = 0x82;
    to[1] = (uint8_t)(128 | (size < 126 ? size : size < 65536 ? 126 : 127));
    if (size >= 65536) {
        put32(to + 2, 0);
        put32(to + 6, size);
        at = 10;
    } else if (size >= 126) {
        put16(to + 2, size);
        at = 4;
    }
    memset(to + at, 0, 4); /* a mask that changes nothing */
    memcpy(to + at + 4, payload, size);
    return at + 4 + size;
}

const struct protocol websocket = {
    "websocket", .echoes = true, .ordered = true, .greet = greet, .parse = parse, .publish = publish};
