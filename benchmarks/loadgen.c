/* The load generator of the benchmarks: all the clients of a run, in one thread, by epoll.
 *
 *   loadgen PROTOCOL name=value ...      the names are those of `options` below
 *
 * It opens rooms * members connections (with rooms=0: members connections in no room), each into its room, which must
 * be new. The first `publishers` members of each room keep `window` publishes under way. Every member checks each
 * message: its place, its whole payload, that all members see the one order, and that nothing is missing at the end.
 * A publisher checks too that its ACKs come in order, and each before its own message.
 *
 * A payload is 16 hexadecimal digits, of the publisher's number and of the message's among those of that publisher, and
 * then text that is the same in all. So what was sent need not be kept to be checked.
 *
 * Standard output gets one line of JSON: what was counted between the end of the warm-up and the end of the measured
 * time, and totals over the whole run. With idle=1 the line comes when all connections are up, and the program ends
 * with its standard input. Exit status: 0; 1 if a check failed, with a line on standard error; 2 for wrong usage.
 *
 * A protocol is three functions; the others know nothing of it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 16, INPUT = 256 * 1024, OUTPUT = 64 * 1024, EVENTS = 256, OPENING = 128 };

struct client {
    int fd;
    uint32_t number;
    uint32_t room;      /* index of its room */
    uint32_t ref;       /* what the server calls the room */
    int step;           /* how far the handshake is; the protocol's own */
    bool publisher, wants_out;
    uint64_t seen;      /* messages received */
    uint64_t own;       /* of these, its own */
    uint64_t sent, acked, sequenced; /* a publisher's messages: published, acknowledged, seen first by any member */
    uint64_t last_seq;  /* of its last ACK */
    int64_t clock_ms;   /* the server's clock less ours */
    uint8_t *carry, *out; /* the beginning of a frame; what the socket did not take yet */
    size_t carried, pending;
};

struct room {
    char (*log)[HEAD]; /* the heads of all payloads, in the order of whoever saw them first */
    uint64_t count, capacity;
};

struct protocol {
    const char *name;
    void (*greet)(struct client *c);                                      /* the transport is up */
    size_t (*parse)(struct client *c, const uint8_t *data, size_t size);  /* the octets used: whole frames */
    size_t (*publish)(struct client *c, uint8_t *to, const char *payload, int64_t now_ms); /* the octets written */
};

static struct { const char *name; long value; } options[] = {
    {"port", 0}, {"rooms", 1}, {"members", 100}, {"publishers", 4}, {"window", 64}, {"payload", 64},
    {"warmup_ms", 300}, {"measure_ms", 1000}, {"drain_ms", 30000}, {"server_pid", 0}, {"idle", 0},
};
enum { PORT, ROOMS, MEMBERS, PUBLISHERS, WINDOW, PAYLOAD, WARMUP, MEASURE, DRAIN, SERVER, IDLE, COUNT_OF_OPTIONS };
#define OPTION(which) (options[which].value)

static const struct protocol *protocol;
static struct client *clients;
static struct room *rooms;
static uint32_t client_count, ready_count;
static uint64_t deliveries, acks, logged; /* of all clients; logged: messages that somebody has seen */
static int poller;
static bool publishing;
static char *pattern;
static uint8_t input[INPUT], salt[2];

/* --- failing, time, measuring ------------------------------------------------------------------------------------ */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t clock_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* What /proc says about the server: the text after the last ')', which ends a name that may hold anything. */
static void read_server(const char *name, char *text, size_t size) {
    snprintf(text, size, "/proc/%ld/%s", OPTION(SERVER), name);
    FILE *file = fopen(text, "r");
    if (!file) fail("%s cannot be read: the server is gone", text);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
    char *end = strrchr(text, ')');
    if (end) memmove(text, end + 1, strlen(end));
}

struct sample { double time, server, waited, own; uint64_t deliveries, acks; };

/* Seconds: the clock's; the server's, user and system, all threads; those in which it could have run but another
 * process had its core (main thread); our own. */
static struct sample sample(void) {
    char text[1024];
    unsigned long user = 0, system = 0, waited = 0;
    if (OPTION(SERVER)) {
        read_server("stat", text, sizeof text);
        sscanf(text, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
        read_server("schedstat", text, sizeof text);
        sscanf(text, "%*u %lu", &waited);
    }
    return (struct sample){
        (double)clock_us(CLOCK_MONOTONIC) / 1e6, (double)(user + system) / (double)sysconf(_SC_CLK_TCK),
        (double)waited / 1e9, (double)clock_us(CLOCK_PROCESS_CPUTIME_ID) / 1e6, deliveries, acks};
}

/* --- what every protocol does ------------------------------------------------------------------------------------ */

static void watch(struct client *c, bool out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.u32 = c->number};
    c->wants_out = out;
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void transmit(struct client *c, const uint8_t *data, size_t size) {
    size_t done = 0;
    while (!c->pending && done < size) {
        ssize_t n = send(c->fd, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) done += (size_t)n;
        else if (errno == EAGAIN) break;
        else if (errno != EINTR) fail("client %u: send: %s", c->number, strerror(errno));
    }
    if (done == size) return;
    c->out = realloc(c->out, c->pending + size - done);
    memcpy(c->out + c->pending, data + done, size - done);
    c->pending += size - done;
    if (!c->wants_out) watch(c, true);
}

static void transmit_pending(struct client *c) {
    uint8_t *data = c->out;
    size_t size = c->pending;
    c->out = NULL;
    c->pending = 0;
    transmit(c, data, size);
    free(data);
    if (!c->pending) watch(c, false);
}

static uint64_t number_of(const char *hex) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        unsigned digit = (unsigned char)hex[i];
        value = value << 4 | (digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return value;
}

/* The first member to see a message of its room fixes what the others must see in its place. */
static void log_message(struct room *room, const char *head) {
    uint64_t publisher = number_of(head), number = number_of(head + 8);
    if (publisher >= client_count || &rooms[clients[publisher].room] != room)
        fail("message %lu of a room was not published to it", (unsigned long)room->count + 1);
    if (number != ++clients[publisher].sequenced)
        fail("client %lu: its message %lu stands where %lu was due", (unsigned long)publisher, (unsigned long)number,
             (unsigned long)clients[publisher].sequenced);
    if (room->count == room->capacity) {
        room->capacity = room->capacity ? room->capacity * 2 : 1024;
        room->log = realloc(room->log, room->capacity * HEAD);
    }
    memcpy(room->log[room->count++], head, HEAD);
    logged++;
}

static void delivered(struct client *c, const char *payload, size_t size) {
    struct room *room = &rooms[c->room];
    if (size != (size_t)OPTION(PAYLOAD) || memcmp(payload + HEAD, pattern + HEAD, size - HEAD))
        fail("client %u: message %lu has another payload", c->number, (unsigned long)c->seen + 1);
    if (c->seen == room->count) log_message(room, payload);
    else if (memcmp(room->log[c->seen], payload, HEAD))
        fail("client %u: message %lu is not what others received there", c->number, (unsigned long)c->seen + 1);
    c->seen++;
    deliveries++;
    if (c->publisher && number_of(payload) == c->number && ++c->own > c->acked)
        fail("client %u: its message %lu came before its ACK", c->number, (unsigned long)c->own);
}

static void acknowledged(struct client *c) {
    if (++c->acked > c->sent) fail("client %u: an ACK too many", c->number);
    acks++;
}

/* Publish as much as the window allows, in one write. */
static void refill(struct client *c) {
    static uint8_t batch[OUTPUT];
    size_t size = 0, most = (size_t)OPTION(PAYLOAD) + 256;
    if (!publishing || !c->publisher) return;
    int64_t now_ms = clock_us(CLOCK_REALTIME) / 1000;
    while (c->sent - c->acked < (uint64_t)OPTION(WINDOW)) {
        char head[HEAD + 1];
        snprintf(head, sizeof head, "%08x%08lx", c->number, (unsigned long)++c->sent);
        memcpy(pattern, head, HEAD);
        size += protocol->publish(c, batch + size, pattern, now_ms);
        if (size + most > sizeof batch) {
            transmit(c, batch, size);
            size = 0;
        }
    }
    if (size) transmit(c, batch, size);
}

static void receive(struct client *c) {
    size_t size = c->carried;
    if (size) memcpy(input, c->carry, size);
    ssize_t n = recv(c->fd, input + size, sizeof input - size, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) fail("client %u: connection closed: %s", c->number, n ? strerror(errno) : "end of stream");
    size += (size_t)n;
    size_t used = protocol->parse(c, input, size);
    if (used == 0 && size == sizeof input) fail("client %u: a frame is too large", c->number);
    if (size > used) {
        c->carry = realloc(c->carry, size - used);
        memcpy(c->carry, input + used, size - used);
    }
    c->carried = size - used;
    refill(c);
}

/* --- Roomwire: SPEC.md, sections 5 and 7 ------------------------------------------------------------------------- */

enum { HELLO = 0x01, WELCOME = 0x02, PING = 0x06, PONG = 0x07, JOIN = 0x10, JOINED = 0x11, ROSTER = 0x12,
       PRESENCE = 0x13, PUBLISH = 0x20, ACK = 0x21, MESSAGE = 0x22 };
enum { HEADER = 16, MESSAGE_NAME = 41 }; /* octets before the length of a MESSAGE's name */
enum { HELLO_REQUEST = 1, JOIN_REQUEST, FIRST_PUBLISH };

static uint64_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return be16toh(v); }
static uint64_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static void put32(uint8_t *p, uint64_t number) { uint32_t v = htobe32((uint32_t)number); memcpy(p, &v, 4); }

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
    acknowledged(c);
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
        c->clock_ms = (int64_t)u64(body + 9 + body[8]) - clock_us(CLOCK_REALTIME) / 1000;
        if (u16(body + 9 + body[8] + 20) < (uint64_t)OPTION(WINDOW)) fail("the server's window is too small");
        if (OPTION(ROOMS)) rw_join(c);
        else ready_count++;
    } else if (type == JOINED && c->step == 2) {
        c->step = 3;
        c->ref = (uint32_t)u32(frame + 12);
        if (u64(body + 8) != 0 || u64(body + 16) != 1) fail("client %u: room-%u is not new", c->number, c->room);
        ready_count++;
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
    size_t size = (size_t)OPTION(PAYLOAD);
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

static const struct protocol protocols[] = {{"roomwire", rw_greet, rw_parse, rw_publish}};

/* --- the run ----------------------------------------------------------------------------------------------------- */

static void open_client(struct client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)OPTION(PORT))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = c->number};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    protocol->greet(c);
}

/* One turn of the loop: false when standard input has ended (watched with idle=1 only). */
static bool turn(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == client_count) return false;
        struct client *c = &clients[events[i].data.u32];
        if (events[i].events & EPOLLOUT) transmit_pending(c);
        if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
    }
    return true;
}

static void open_all(void) {
    uint32_t opened = 0;
    int64_t deadline = clock_us(CLOCK_MONOTONIC) + OPTION(DRAIN) * 1000 + client_count * 5000L;
    while (ready_count < client_count) {
        /* Few at a time: what overflows the server's queue would be tried again after a second only. */
        while (opened < client_count && opened - ready_count < OPENING) open_client(&clients[opened++]);
        turn(100);
        if (clock_us(CLOCK_MONOTONIC) > deadline) fail("only %u of %u clients got in", ready_count, client_count);
    }
}

static void run_for(long ms) {
    int64_t end = clock_us(CLOCK_MONOTONIC) + ms * 1000;
    while (clock_us(CLOCK_MONOTONIC) < end) turn(10);
}

static bool complete(void) {
    for (uint32_t i = 0; i < client_count; i++)
        if (clients[i].acked != clients[i].sent || clients[i].seen != rooms[clients[i].room].count) return false;
    return logged == acks;
}

static void drain(void) {
    int64_t deadline = clock_us(CLOCK_MONOTONIC) + OPTION(DRAIN) * 1000;
    while (!complete()) {
        turn(10);
        if (clock_us(CLOCK_MONOTONIC) > deadline)
            fail("messages or ACKs are missing %ld ms after the last publish", OPTION(DRAIN));
    }
}

static void measure(void) {
    publishing = true;
    for (uint32_t i = 0; i < client_count; i++) refill(&clients[i]);
    run_for(OPTION(WARMUP));
    struct sample from = sample();
    run_for(OPTION(MEASURE));
    struct sample to = sample();
    publishing = false;
    drain();
    printf("{\"seconds\": %.6f, \"deliveries\": %lu, \"publishes\": %lu, \"server_cpu\": %.3f, "
           "\"server_waited\": %.6f, \"own_cpu\": %.6f, \"all_deliveries\": %lu, \"all_publishes\": %lu}\n",
           to.time - from.time, (unsigned long)(to.deliveries - from.deliveries), (unsigned long)(to.acks - from.acks),
           to.server - from.server, to.waited - from.waited, to.own - from.own, (unsigned long)deliveries,
           (unsigned long)acks);
}

static void stay_idle(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = client_count};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("epoll_ctl: %s", strerror(errno));
    printf("{\"connections\": %u}\n", client_count);
    fflush(stdout);
    while (turn(-1)) {}
}

static void set_option(const char *text) {
    size_t length = strcspn(text, "=");
    for (int i = 0; i < COUNT_OF_OPTIONS; i++)
        if (text[length] && length == strlen(options[i].name) && !strncmp(text, options[i].name, length)) {
            options[i].value = atol(text + length + 1);
            return;
        }
    fprintf(stderr, "loadgen: unknown option %s\n", text);
    exit(2);
}

int main(int argc, char **argv) {
    struct rlimit limit;
    for (size_t i = 0; argc > 1 && i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(argv[1], protocols[i].name)) protocol = &protocols[i];
    for (int i = 2; i < argc; i++) set_option(argv[i]);
    if (!protocol || OPTION(PAYLOAD) < HEAD || OPTION(PAYLOAD) > 4096 || OPTION(MEMBERS) < 1) {
        fputs("loadgen: expected a known protocol, a payload of 16 to 4096 octets, at least one member\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(0);
    if (poller < 0 || getrandom(salt, sizeof salt, 0) != sizeof salt) fail("%s", strerror(errno));
    uint32_t room_count = OPTION(ROOMS) ? (uint32_t)OPTION(ROOMS) : 1;
    client_count = room_count * (uint32_t)OPTION(MEMBERS);
    clients = calloc(client_count, sizeof *clients);
    rooms = calloc(room_count, sizeof *rooms);
    pattern = malloc((size_t)OPTION(PAYLOAD));
    for (long i = 0; i < OPTION(PAYLOAD); i++) pattern[i] = (char)('a' + i % 26);
    for (uint32_t i = 0; i < client_count; i++) {
        clients[i].number = i;
        clients[i].room = i / (uint32_t)OPTION(MEMBERS);
        clients[i].publisher = OPTION(ROOMS) && i % (uint32_t)OPTION(MEMBERS) < (uint32_t)OPTION(PUBLISHERS);
    }
    open_all();
    if (OPTION(IDLE)) stay_idle();
    else measure();
    return 0;
}
