/* Shared by the parts of the load generator: main.c has the run and the checks, each other file has one protocol. */
#ifndef LOAD_H
#define LOAD_H
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { HEAD = 16 }; /* of a payload: 8 hexadecimal digits of the publisher's number, 8 of its message's number */

struct client {
    int fd;
    uint32_t number;
    uint32_t room;      /* index of its room */
    uint32_t ref;       /* the server's ref of the room */
    int step;           /* of the handshake; defined by the protocol */
    bool publisher, wants_out, deaf; /* deaf: it reads nothing once it is in */
    uint64_t seen;      /* messages received */
    uint64_t own;       /* its own among these */
    uint64_t sent, acked, sequenced; /* a publisher's messages: published, acknowledged, seen by any member */
    uint64_t last_seq;  /* of its last ACK */
    uint32_t place;     /* of a publisher among all publishers */
    uint32_t *next;     /* without a common order: messages seen of each publisher of the room */
    int64_t clock_ms;   /* the server's clock minus ours */
    uint8_t *carry, *out; /* the beginning of a frame; octets that the socket has not taken yet */
    size_t carried, pending;
};

struct protocol {
    const char *name;
    bool acks;     /* the server acknowledges; otherwise a publisher's own message counts as its acknowledgement */
    bool echoes;   /* a publisher gets its own messages */
    bool ordered;  /* all members see one order; otherwise only the messages of one publisher are in order */
    void (*greet)(struct client *c);                                      /* called when the transport is up */
    size_t (*parse)(struct client *c, const uint8_t *data, size_t size);  /* returns the octets of whole frames */
    size_t (*publish)(struct client *c, uint8_t *to, const char *payload, int64_t now_ms); /* returns octets written */
    size_t (*published)(struct client *c, uint8_t *to); /* called after the publishes of one write; may be null */
};

extern const struct protocol roomwire, nats, jetstream, redis, mqtt, irc, websocket;

extern const uint8_t salt[2]; /* random, different in each run */

size_t payload_size(void);
uint64_t window_size(void);
bool in_rooms(const struct client *c); /* whether this client joins a room */

/* Print a line that says what is wrong, and exit. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
int64_t wall_ms(void);

void transmit(struct client *c, const uint8_t *data, size_t size); /* sends; keeps what the socket does not take */
void ready(struct client *c);                                      /* the client is in its room */
void delivered(struct client *c, const char *payload, size_t size);
void acknowledged(struct client *c, uint64_t count);

static inline uint64_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return be16toh(v); }
static inline uint64_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static inline uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static inline void put16(uint8_t *p, uint64_t number) { uint16_t v = htobe16((uint16_t)number); memcpy(p, &v, 2); }
static inline void put32(uint8_t *p, uint64_t number) { uint32_t v = htobe32((uint32_t)number); memcpy(p, &v, 4); }
#endif
