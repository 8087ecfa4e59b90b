/* MQTT 3.1.1, QoS 0: one topic a room. */
#include "load.h"
#include <stdio.h>

static size_t put_length(uint8_t *to, size_t length) {
    size_t size = 0;
    do {
        to[size] = (uint8_t)(length & 127);
        length >>= 7;
        if (length) to[size] |= 128;
        size++;
    } while (length);
    return size;
}

static void greet(struct client *c) {
    uint8_t packet[64] = {0x10, 0, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0};
    int name = snprintf((char *)packet + 14, 32, "load-%u", c->number);
    put16(packet + 12, (uint64_t)name);
    packet[1] = (uint8_t)(12 + name);
    transmit(c, packet, 14 + (size_t)name);
}

static void subscribe(struct client *c) {
    uint8_t packet[64] = {0x82, 0, 0, 1};
    int name = snprintf((char *)packet + 6, 32, "room/%u", c->room);
    put16(packet + 4, (uint64_t)name);
    packet[1] = (uint8_t)(5 + name); /* and QoS 0 behind the name */
    transmit(c, packet, 7 + (size_t)name);
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2) {
        size_t length = 0, head = 1;
        for (unsigned shift = 0;; shift += 7) {
            if (at + head >= size) return at;
            length |= (size_t)(data[at + head] & 127) << shift;
            if (!(data[at + head++] & 128)) break;
        }
        if (size - at - head < length) break;
        const uint8_t *body = data + at + head;
        if (data[at] >> 4 == 3) {
            size_t topic = 2 + u16(body);
            delivered(c, (const char *)body + topic, length - topic);
        } else if (data[at] == 0x20 && body[1] == 0 && c->step == 0) {
            c->step = 1;
            if (in_rooms(c)) subscribe(c);
            else ready(c);
        } else if (data[at] == 0x90 && body[2] == 0 && c->step == 1) {
            c->step = 2;
            ready(c);
        } else fail("client %u: packet 0x%02x", c->number, data[at]);
        at += head + length;
    }
    return at;
}

static size_t publish(struct client *c, uint8_t *to, const char *payload, int64_t now_ms) {
    char topic[24];
    (void)now_ms;
    int name = snprintf(topic, sizeof topic, "room/%u", c->room);
    to[0] = 0x30;
    size_t at = 1 + put_length(to + 1, 2 + (size_t)name + payload_size());
    put16(to + at, (uint64_t)name);
    memcpy(to + at + 2, topic, (size_t)name);
    memcpy(to + at + 2 + name, payload, payload_size());
    return at + 2 + (size_t)name + payload_size();
}

const struct protocol mqtt = {
    "mqtt", .echoes = true, .ordered = true, .greet = greet, .parse = parse, .publish = publish};
