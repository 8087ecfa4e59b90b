/* NATS, its text protocol: one subject a room. And JetStream: the same, and the stream's acknowledgement of each. */
#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>

static const char CONNECT[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true}\r\n";
static const char CONFIG[] = "{\"name\":\"LOAD\",\"subjects\":[\"room.*\"],\"storage\":\"file\",\"num_replicas\":1}";

enum { INFO_DUE, PONG_DUE, STREAM_DUE, OPEN };

static void say(struct client *c, const char *text) { transmit(c, (const uint8_t *)text, strlen(text)); }

static void greet(struct client *c) { (void)c; } /* the server speaks first */

static void subscribe(struct client *c) {
    char text[512];
    int size = snprintf(text, sizeof text, "%s", CONNECT);
    if (in_rooms(c)) size += snprintf(text + size, sizeof text - (size_t)size, "SUB room.%u 1\r\n", c->room);
    size += snprintf(text + size, sizeof text - (size_t)size, "SUB ack.%u 2\r\n", c->number);
    snprintf(text + size, sizeof text - (size_t)size, "PING\r\n");
    say(c, text);
}

/* MSG subject sid [reply] size */
static void message(struct client *c, const char *line, const char *body, size_t size, bool stream) {
    if (strncmp(line, "MSG ack.", 8)) {
        char subject[32];
        int length = snprintf(subject, sizeof subject, "MSG room.%u 1 ", c->room);
        if (strncmp(line, subject, (size_t)length)) fail("client %u: a message of another room", c->number);
        delivered(c, body, size);
    } else if (!stream || !memmem(body, size, "\"stream\":\"LOAD\"", 15) || memmem(body, size, "\"error\"", 7)) {
        if (c->step != STREAM_DUE || memmem(body, size, "\"error\"", 7)) fail("JetStream: %.*s", (int)size, body);
        c->step = OPEN;
        ready(c);
    } else acknowledged(c, 1);
}

static size_t parse_any(struct client *c, const uint8_t *data, size_t size, bool stream) {
    size_t at = 0;
    for (;;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        if (!end) return at;
        const char *line = (const char *)data + at;
        size_t next = (size_t)(end - data) + 1;
        if (!memcmp(line, "MSG", 3)) {
            const uint8_t *number = end - 1; /* behind it CR */
            while (number[-1] != ' ') number--;
            size_t length = strtoul((const char *)number, NULL, 10);
            if (size - next < length + 2) return at;
            message(c, line, (const char *)data + next, length, stream);
            next += length + 2;
        } else if (!memcmp(line, "INFO", 4)) {
            if (c->step == INFO_DUE) {
                c->step = PONG_DUE;
                subscribe(c);
            }
        } else if (!memcmp(line, "PONG", 4)) {
            if (stream && c->number == 0) {
                char text[256];
                snprintf(text, sizeof text, "PUB $JS.API.STREAM.CREATE.LOAD ack.0 %zu\r\n%s\r\n", strlen(CONFIG), CONFIG);
                c->step = STREAM_DUE;
                say(c, text);
            } else {
                c->step = OPEN;
                ready(c);
            }
        } else if (!memcmp(line, "PING", 4)) say(c, "PONG\r\n");
        else fail("client %u: the server said %.40s", c->number, line);
        at = next;
    }
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) { return parse_any(c, data, size, false); }
static size_t parse_stream(struct client *c, const uint8_t *data, size_t size) { return parse_any(c, data, size, true); }

static size_t publish_any(struct client *c, uint8_t *to, const char *payload, bool stream) {
    char reply[24] = "";
    if (stream) snprintf(reply, sizeof reply, "ack.%u ", c->number);
    int size = sprintf((char *)to, "PUB room.%u %s%zu\r\n", c->room, reply, payload_size());
    memcpy(to + size, payload, payload_size());
    memcpy(to + size + payload_size(), "\r\n", 2);
    return (size_t)size + payload_size() + 2;
}

static size_t publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    (void)now_ms;
    return publish_any(c, to, payload, false);
}

static size_t publish_stream(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    (void)now_ms;
    return publish_any(c, to, payload, true);
}

const struct protocol nats = {
    "nats", .echoes = true, .greet = greet, .parse = parse, .publish = publish};
const struct protocol jetstream = {
    "jetstream", .acks = true, .echoes = true, .greet = greet, .parse = parse_stream, .publish = publish_stream};
