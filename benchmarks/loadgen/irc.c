/* IRC: one channel a room. The server does not echo, so the PONG to a PING after the publishes acknowledges them. */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>

static void greet(struct client *c) {
    char text[96];
    int size = snprintf(text, sizeof text, "NICK l%u\r\nUSER load 0 * :load\r\n", c->number);
    transmit(c, (const uint8_t *)text, (size_t)size);
}

/* The word after `count` spaces of a line that ends with LF. */
static const char *word(const char *line, int count) {
    while (count && *line != '\n')
        if (*line++ == ' ') count--;
    return line;
}

static void join(struct client *c) {
    char text[48];
    int size = snprintf(text, sizeof text, "JOIN #r%u\r\n", c->room);
    if (in_rooms(c)) transmit(c, (const uint8_t *)text, (size_t)size);
    else ready(c);
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    for (;;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        if (!end) return at;
        const char *line = (const char *)data + at, *verb = *line == ':' ? word(line, 1) : line;
        size_t next = (size_t)(end - data) + 1;
        if (!memcmp(verb, "PRIVMSG ", 8)) {
            const char *text = word(verb, 2) + 1;
            delivered(c, text, (size_t)((const char *)end - text) - 1);
        } else if (!memcmp(verb, "PONG ", 5)) {
            const char *number = (const char *)end; /* the last word */
            while (number[-1] != ' ' && number[-1] != ':') number--;
            acknowledged(c, strtoul(number, NULL, 10) - c->acked);
        } else if (!memcmp(verb, "PING ", 5)) {
            char text[96];
            int length = snprintf(text, sizeof text, "PONG %.*s\r\n", (int)((const char *)end - verb - 6), verb + 5);
            transmit(c, (const uint8_t *)text, (size_t)length);
        } else if (!memcmp(verb, "001 ", 4)) join(c);
        else if (!memcmp(verb, "366 ", 4)) ready(c); /* the end of the list of names */
        else if (*verb == '4' || *verb == '5' || !memcmp(verb, "ERROR", 5)) {
            if (memcmp(verb, "422", 3)) fail("client %u: the server said %.60s", c->number, verb); /* no MOTD */
        }
        at = next;
    }
}

static size_t publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    (void)now_ms;
    int size = sprintf((char *)to, "PRIVMSG #r%u :", c->room);
    memcpy(to + size, payload, payload_size());
    memcpy(to + size + payload_size(), "\r\n", 2);
    return (size_t)size + payload_size() + 2;
}

static size_t published(struct client *c, uint8_t *to) { return (size_t)sprintf((char *)to, "PING %lu\r\n", (unsigned long)c->sent); }

const struct protocol irc = {
    "irc", .acks = true, .greet = greet, .parse = parse, .publish = publish, .published = published};
