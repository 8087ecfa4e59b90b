/* Redis: RESP3, in which a connection may publish and be subscribed at once; one channel a room. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 8 };

static void greet(struct client *c) {
    char text[96] = "HELLO 3\r\n";
    if (in_rooms(c)) snprintf(text + 9, sizeof text - 9, "SUBSCRIBE room-%u\r\n", c->room);
    transmit(c, (const uint8_t *)text, strlen(text));
}

/* The octets of a value at `at`, 0 if it is not complete; the texts of a flat aggregate go to `texts`. */
static size_t value(const uint8_t *data, size_t size, size_t at, const char **texts, size_t *lengths, unsigned *count) {
    const uint8_t *end = memchr(data + at, '\n', size - at);
    if (!end) return 0;
    size_t next = (size_t)(end - data) + 1;
    long number = strtol((const char *)data + at + 1, NULL, 10);
    switch (data[at]) {
    case '$':
        if (size - next < (size_t)number + 2) return 0;
        if (*count < TOKENS) {
            texts[*count] = (const char *)data + next;
            lengths[(*count)++] = (size_t)number;
        }
        return next + (size_t)number + 2;
    case '%':
        number *= 2; /* fall through */
    case '*':
    case '>':
        for (; number > 0; number--)
            if (!(next = value(data, size, next, texts, lengths, count))) return 0;
        return next;
    case '-': fail("the server said %.60s", (const char *)data + at);
    default: return next;
    }
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    while (at < size) {
        const char *texts[TOKENS];
        size_t lengths[TOKENS];
        unsigned count = 0;
        size_t next = value(data, size, at, texts, lengths, &count);
        if (!next) return at;
        if (data[at] == '>' && count == 3 && !memcmp(texts[0], "message", 7)) delivered(c, texts[2], lengths[2]);
        else if (data[at] == '>' ? c->step == 1 : c->step == 0) { /* the answers to HELLO and SUBSCRIBE */
            c->step++;
            if (c->step == (in_rooms(c) ? 2 : 1)) ready(c);
        } else if (data[at] != ':') fail("client %u: the server said %.40s", c->number, (const char *)data + at);
        at = next;
    }
    return at;
}

static size_t publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    char room[24];
    (void)now_ms;
    int length = snprintf(room, sizeof room, "room-%u", c->room);
    int size = sprintf((char *)to, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%zu\r\n", length, room, payload_size());
    memcpy(to + size, payload, payload_size());
    memcpy(to + size + payload_size(), "\r\n", 2);
    return (size_t)size + payload_size() + 2;
}

const struct protocol redis = {
    "redis", .echoes = true, .ordered = true, .greet = greet, .parse = parse, .publish = publish};
