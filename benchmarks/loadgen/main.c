/* The load generator of the benchmarks: all clients of a run, in one thread, on epoll.
 *
 *   loadgen PROTOCOL name=value ...      the names are those of `options` below
 *
 * It opens rooms * members connections (with rooms=0, `members` connections in no room), each in its room, which must be
 * new. The first `publishers` members of each room publish: each keeps `window` publishes under way; or with rate=N, all
 * of them together publish N a second by the clock, without waiting for replies. Every member checks each message: its
 * place, its whole payload, that all members see the same order (or only each publisher's order, if a server promises no
 * more), and at the end that no message is missing. A publisher also checks that its ACKs come in order, each before its
 * own message; if the protocol has no ACKs, its own message counts as one.
 *
 * deaf=N: the last N members of the first room read nothing once they are in. extra=N: N more connections, which are
 * idle; with extra_rooms=1, each is in its own room.
 *
 * A payload begins with 16 hexadecimal digits: the publisher's number, and the message's number among those of this
 * publisher. The rest is the same text in all payloads, so messages are checked without being stored. With rate=N the two
 * numbers tell when the message was due, and latency counts from that time: it includes the time that a slow server kept
 * the message from being sent.
 *
 * It writes one line of JSON to standard output: the counts between the end of the warm-up and the end of the measured
 * time, and the totals of the whole run. With idle=1 it writes the line once all connections are up, and ends with its
 * standard input. Exit status: 0; 1 if a check failed, with a line on standard error; 2 for wrong usage.
 *
 * Each protocol has its own file, which knows nothing of the checks.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT = 1024 * 1024, OUTPUT = 256 * 1024, EVENTS = 256, OPENING = 128, PAYLOAD_MOST = 64 * 1024 };
enum { BUCKETS = 32 * 32 }; /* of latencies in microseconds: 32 to each power of two */

struct room {
    char (*log)[HEAD]; /* the heads of all payloads, in the order of the member that saw them first */
    uint64_t count, capacity;
    uint64_t published;
};

static struct { const char *name; long value; } options[] = {
    {"port", 0}, {"rooms", 1}, {"members", 100}, {"publishers", 4}, {"window", 64}, {"payload", 64},
    {"warmup_ms", 300}, {"measure_ms", 1000}, {"drain_ms", 30000}, {"server_pid", 0}, {"idle", 0},
    {"rate", 0}, {"deaf", 0}, {"extra", 0}, {"extra_rooms", 0},
};
enum { PORT, ROOMS, MEMBERS, PUBLISHERS, WINDOW, PAYLOAD, WARMUP, MEASURE, DRAIN, SERVER, IDLE,
       RATE, DEAF, EXTRA, EXTRA_ROOMS, COUNT_OF_OPTIONS };
#define OPTION(which) (options[which].value)

static const struct protocol *const protocols[] = {&roomwire, &nats, &jetstream, &redis, &mqtt, &irc, &websocket};
static const struct protocol *protocol;
static struct client *clients, **publishers;
static struct room *rooms;
static uint32_t client_count, talker_count, ready_count, publisher_count; /* talkers: clients in the measured rooms */
static uint64_t deliveries, acks; /* of all clients */
static int poller;
static bool publishing;
static char *pattern;
static uint8_t input[INPUT];
static int64_t clock_start_us, received_us; /* start of the schedule of rate=N; when the current octets were read */
static uint64_t due_next, due_from, due_to; /* numbers of publishes on that schedule: next; first and end of measured */
static uint64_t latencies[BUCKETS];
static uint8_t salt_octets[2];
extern const uint8_t salt[2] __attribute__((alias("salt_octets")));

size_t payload_size(void) { return (size_t)OPTION(PAYLOAD); }
uint64_t window_size(void) { return (uint64_t)OPTION(WINDOW); }
bool in_rooms(const struct client *c) { return c->number < talker_count ? OPTION(ROOMS) : OPTION(EXTRA_ROOMS); }
void ready(struct client *c) {
    (void)c;
    ready_count++;
}

/* --- failing, time, measuring ------------------------------------------------------------------------------------ */

void fail(const char *format, ...) {
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

int64_t wall_ms(void) { return clock_us(CLOCK_REALTIME) / 1000; }

/* Read a file in /proc. */
static bool read_text(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
    return true;
}

/* The nanoseconds for which the server's threads waited because other processes had its core. */
static unsigned long waited_ns(void) {
    char path[300], text[256];
    unsigned long sum = 0, waited;
    snprintf(path, sizeof path, "/proc/%ld/task", OPTION(SERVER));
    DIR *tasks = opendir(path);
    if (!tasks) fail("the server is gone");
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", OPTION(SERVER), task->d_name);
        if (read_text(path, text, sizeof text) && sscanf(text, "%*u %lu", &waited) == 1) sum += waited;
    }
    closedir(tasks);
    return sum;
}

struct sample { double time, server, waited, own; uint64_t deliveries, acks, resident; };

/* In seconds: the clock; the server's CPU time, user and system, of all threads; the time that it waited for its core;
 * our own CPU time. And the server's resident memory in octets. */
static struct sample sample(void) {
    char path[64], text[256];
    unsigned long pages = 0;
    double server = 0, waited = 0;
    if (OPTION(SERVER)) {
        clockid_t clock;
        if (clock_getcpuclockid((pid_t)OPTION(SERVER), &clock)) fail("the server is gone");
        server = (double)clock_us(clock) / 1e6;
        waited = (double)waited_ns() / 1e9;
        snprintf(path, sizeof path, "/proc/%ld/statm", OPTION(SERVER));
        if (read_text(path, text, sizeof text)) sscanf(text, "%*u %lu", &pages);
    }
    return (struct sample){
        (double)clock_us(CLOCK_MONOTONIC) / 1e6, server, waited, (double)clock_us(CLOCK_PROCESS_CPUTIME_ID) / 1e6,
        deliveries, acks, pages * (uint64_t)sysconf(_SC_PAGESIZE)};
}

/* --- what every protocol does ------------------------------------------------------------------------------------ */

static void watch(struct client *c, bool out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.u32 = c->number};
    c->wants_out = out;
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

void transmit(struct client *c, const uint8_t *data, size_t size) {
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

/* The publisher that a payload names, which must be a member of the room. */
static struct client *publisher_of(struct client *c, const char *head) {
    uint64_t number = number_of(head);
    if (number >= talker_count || !clients[number].publisher || clients[number].room != c->room)
        fail("client %u: message %lu was not published to its room", c->number, (unsigned long)c->seen + 1);
    return &clients[number];
}

/* The first member that sees a message of its room determines what the others must see in this place. */
static void log_message(struct client *c, struct room *room, const char *head) {
    struct client *publisher = publisher_of(c, head);
    uint64_t number = number_of(head + 8);
    if (number != ++publisher->sequenced)
        fail("client %u: its message %lu stands where %lu was due", publisher->number, (unsigned long)number,
             (unsigned long)publisher->sequenced);
    if (room->count == room->capacity) {
        room->capacity = room->capacity ? room->capacity * 2 : 1024;
        room->log = realloc(room->log, room->capacity * HEAD);
    }
    memcpy(room->log[room->count++], head, HEAD);
}

static void check_order(struct client *c, const char *head) {
    struct room *room = &rooms[c->room];
    if (!protocol->ordered) {
        uint32_t index = publisher_of(c, head)->number - c->room * (uint32_t)OPTION(MEMBERS);
        if (number_of(head + 8) != ++c->next[index])
            fail("client %u: of publisher %u message %lu came where %u was due", c->number, index,
                 (unsigned long)number_of(head + 8), c->next[index]);
    } else if (c->seen == room->count) log_message(c, room, head);
    else if (memcmp(room->log[c->seen], head, HEAD))
        fail("client %u: message %lu is not what others received there", c->number, (unsigned long)c->seen + 1);
}

static void note_latency(const char *head) {
    /* The number on the common schedule, on which publishers take turns. */
    uint64_t due = (number_of(head + 8) - 1) * publisher_count + clients[number_of(head)].place;
    if (due < due_from || due >= due_to) return;
    int64_t us = received_us - clock_start_us - (int64_t)((double)due * 1e6 / (double)OPTION(RATE));
    uint64_t value = us > 0 ? (uint64_t)us : 0;
    unsigned shift = value < 64 ? 0 : 58 - (unsigned)__builtin_clzl(value);
    uint64_t bucket = shift * 32 + (value >> shift);
    latencies[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

void delivered(struct client *c, const char *payload, size_t size) {
    if (size != (size_t)OPTION(PAYLOAD) || memcmp(payload + HEAD, pattern + HEAD, size - HEAD))
        fail("client %u: message %lu has another payload", c->number, (unsigned long)c->seen + 1);
    check_order(c, payload);
    c->seen++;
    deliveries++;
    if (OPTION(RATE)) note_latency(payload);
    if (!c->publisher || number_of(payload) != c->number) return;
    c->own++;
    if (!protocol->acks) acknowledged(c, 1);
    else if (protocol->ordered && c->own > c->acked)
        fail("client %u: its message %lu came before its ACK", c->number, (unsigned long)c->own);
}

void acknowledged(struct client *c, uint64_t count) {
    acks += count;
    if ((c->acked += count) > c->sent) fail("client %u: an ACK too many", c->number);
}

static size_t add_publish(struct client *c, uint8_t *to, int64_t now_ms) {
    static const char digits[] = "0123456789abcdef";
    uint64_t number = ++c->sent;
    for (int i = 7; i >= 0; i--, number >>= 4) pattern[8 + i] = digits[number & 15];
    number = c->number;
    for (int i = 7; i >= 0; i--, number >>= 4) pattern[i] = digits[number & 15];
    rooms[c->room].published++;
    return protocol->publish(c, to, pattern, now_ms);
}

/* Publish as much as the window allows, in one write. */
static void refill(struct client *c) {
    static uint8_t batch[OUTPUT];
    size_t size = 0, most = (size_t)OPTION(PAYLOAD) + 256;
    if (!publishing || !c->publisher || OPTION(RATE) || c->sent - c->acked >= (uint64_t)OPTION(WINDOW)) return;
    int64_t now_ms = wall_ms();
    while (c->sent - c->acked < (uint64_t)OPTION(WINDOW)) {
        size += add_publish(c, batch + size, now_ms);
        if (size + 2 * most > sizeof batch) {
            transmit(c, batch, size);
            size = 0;
        }
    }
    if (protocol->published) size += protocol->published(c, batch + size);
    if (size) transmit(c, batch, size);
}

/* Publish what is due by the clock; returns the milliseconds until the next publish is due. */
static int publish_due(void) {
    static uint8_t batch[2 * PAYLOAD_MOST];
    for (;;) {
        int64_t due_us = clock_start_us + (int64_t)((double)due_next * 1e6 / (double)OPTION(RATE));
        int64_t wait_us = due_us - clock_us(CLOCK_MONOTONIC);
        if (wait_us > 0) return (int)(wait_us / 1000);
        struct client *c = publishers[due_next++ % publisher_count];
        size_t size = add_publish(c, batch, wall_ms());
        if (protocol->published) size += protocol->published(c, batch + size);
        transmit(c, batch, size);
    }
}

static void receive(struct client *c) {
    size_t size = c->carried;
    if (size) memcpy(input, c->carry, size);
    ssize_t n = recv(c->fd, input + size, sizeof input - size, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) fail("client %u: connection closed: %s", c->number, n ? strerror(errno) : "end of stream");
    size += (size_t)n;
    if (OPTION(RATE)) received_us = clock_us(CLOCK_MONOTONIC);
    size_t used = protocol->parse(c, input, size);
    if (used == 0 && size == sizeof input) fail("client %u: a frame is too large", c->number);
    if (size > used) {
        c->carry = realloc(c->carry, size - used);
        memcpy(c->carry, input + used, size - used);
    }
    c->carried = size - used;
    refill(c);
}

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

/* One turn of the loop; returns false if standard input has ended (watched only with idle=1). */
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
        /* Few at a time: a connection that overflows the server's queue is only tried again after a second. */
        while (opened < client_count && opened - ready_count < OPENING) open_client(&clients[opened++]);
        turn(100);
        if (clock_us(CLOCK_MONOTONIC) > deadline) fail("only %u of %u clients got in", ready_count, client_count);
    }
}

static void run_for(long ms) {
    int64_t end = clock_us(CLOCK_MONOTONIC) + ms * 1000;
    while (clock_us(CLOCK_MONOTONIC) < end) {
        int wait = OPTION(RATE) ? publish_due() : 10;
        turn(wait < 10 ? wait : 10);
    }
}

static bool complete(void) {
    for (uint32_t i = 0; i < talker_count; i++) {
        const struct client *c = &clients[i];
        uint64_t echoed = protocol->echoes ? 0 : c->sent;
        if (c->deaf) continue;
        if (c->acked != c->sent || c->seen + echoed != rooms[c->room].published) return false;
    }
    return true;
}

static void drain(void) {
    int64_t deadline = clock_us(CLOCK_MONOTONIC) + OPTION(DRAIN) * 1000;
    while (!complete()) {
        turn(10);
        if (clock_us(CLOCK_MONOTONIC) > deadline)
            fail("messages or ACKs are missing %ld ms after the last publish", OPTION(DRAIN));
    }
}

/* The microseconds that this share of the measured messages did not exceed: the middle of the bucket. */
static double percentile(double share) {
    uint64_t all = 0, count = 0;
    for (int i = 0; i < BUCKETS; i++) all += latencies[i];
    for (unsigned i = 0; i < BUCKETS && all; i++)
        if ((double)(count += latencies[i]) >= share * (double)all) {
            unsigned shift = i < 64 ? 0 : i / 32 - 1;
            return (double)((uint64_t)(i - shift * 32) << shift) + (double)(1UL << shift) / 2;
        }
    return 0;
}

static void measure(void) {
    publishing = true;
    clock_start_us = clock_us(CLOCK_MONOTONIC);
    due_from = (uint64_t)(OPTION(RATE) * OPTION(WARMUP) / 1000);
    due_to = due_from + (uint64_t)(OPTION(RATE) * OPTION(MEASURE) / 1000);
    for (uint32_t i = 0; i < publisher_count; i++) refill(publishers[i]);
    run_for(OPTION(WARMUP));
    struct sample from = sample();
    run_for(OPTION(MEASURE));
    struct sample to = sample();
    publishing = false;
    drain();
    printf("{\"seconds\": %.6f, \"deliveries\": %lu, \"publishes\": %lu, \"server_cpu\": %.6f, "
           "\"server_waited\": %.6f, \"own_cpu\": %.6f, \"all_deliveries\": %lu, \"all_publishes\": %lu, "
           "\"resident_before\": %lu, \"resident_after\": %lu, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"most_us\": %.1f}\n",
           to.time - from.time, (unsigned long)(to.deliveries - from.deliveries), (unsigned long)(to.acks - from.acks),
           to.server - from.server, to.waited - from.waited, to.own - from.own, (unsigned long)deliveries,
           (unsigned long)acks, (unsigned long)from.resident, (unsigned long)to.resident,
           percentile(0.5), percentile(0.9), percentile(0.99), percentile(0.999), percentile(1));
}

static void stay_idle(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = client_count};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("epoll_ctl: %s", strerror(errno));
    printf("{\"connections\": %u}\n", client_count);
    fflush(stdout);
    while (turn(-1)) {}
}

static void fall_deaf(struct client *c) {
    struct epoll_event event = {.events = 0, .data.u32 = c->number};
    if (epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

/* Place the clients in rooms, and choose the publishers. */
static void place_clients(void) {
    uint32_t members = (uint32_t)OPTION(MEMBERS), room_count = OPTION(ROOMS) ? (uint32_t)OPTION(ROOMS) : 1;
    talker_count = room_count * members;
    client_count = talker_count + (uint32_t)OPTION(EXTRA);
    clients = calloc(client_count, sizeof *clients);
    publishers = calloc(talker_count, sizeof *publishers);
    rooms = calloc(room_count, sizeof *rooms);
    for (uint32_t i = 0; i < client_count; i++) {
        struct client *c = &clients[i];
        c->number = i;
        c->room = i < talker_count ? i / members : room_count + i - talker_count;
        if (i >= talker_count) continue;
        c->deaf = i < members && i >= members - (uint32_t)OPTION(DEAF);
        c->publisher = OPTION(ROOMS) && i % members < (uint32_t)OPTION(PUBLISHERS);
        if (!protocol->ordered) c->next = calloc((size_t)OPTION(PUBLISHERS), sizeof *c->next);
        if (!c->publisher) continue;
        c->place = publisher_count;
        publishers[publisher_count++] = c;
    }
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
        if (!strcmp(argv[1], protocols[i]->name)) protocol = protocols[i];
    for (int i = 2; i < argc; i++) set_option(argv[i]);
    if (!protocol || OPTION(PAYLOAD) < HEAD || OPTION(PAYLOAD) > PAYLOAD_MOST || OPTION(MEMBERS) < 1) {
        fputs("loadgen: expected a known protocol, a payload of 16 to 65536 octets, at least one member\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(0);
    if (poller < 0 || getrandom(salt_octets, sizeof salt_octets, 0) != sizeof salt_octets) fail("%s", strerror(errno));
    place_clients();
    pattern = malloc((size_t)OPTION(PAYLOAD));
    for (long i = 0; i < OPTION(PAYLOAD); i++) pattern[i] = (char)('a' + i % 26);
    open_all();
    for (uint32_t i = 0; i < talker_count; i++)
        if (clients[i].deaf) fall_deaf(&clients[i]);
    if (OPTION(IDLE)) stay_idle();
    else measure();
    return 0;
}
