/* A minimal room server that flushes once a tick: it shows the cost of the workload itself.
 *
 * It speaks as much of Roomwire as loadgen does, over 127.0.0.1, and prints "listening on 127.0.0.1:PORT". It checks,
 * remembers and refuses nothing, and copies what a slow member does not take.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 16, INPUT = 256 * 1024, EVENTS = 1024, MOST_ROOMS = 65536 };
enum { HELLO = 1, WELCOME = 2, JOIN = 0x10, JOINED = 0x11, PUBLISH = 0x20, ACK = 0x21, MESSAGE = 0x22 };

struct octets { uint8_t *data; size_t size, capacity; };

struct client {
    int fd;
    bool greeted, touched;
    uint32_t room; /* its ref, 0 before JOIN */
    struct octets in, out, late; /* an unfinished frame; this tick's replies; octets that the socket did not take */
    uint8_t name[256];
    uint64_t member;
};

struct room {
    char name[256];
    uint64_t seq;
    bool changed;
    struct octets news; /* the MESSAGEs of this tick */
    struct client **members;
    uint32_t count, capacity;
};

static struct room *rooms;
static uint32_t room_count, changed_count;
static uint32_t changed[MOST_ROOMS];
static struct client **touched;
static size_t touched_count, touched_capacity;
static int poller;
static uint64_t now_ms, next_member = 1;
static uint8_t input[INPUT];

static uint8_t *extend(struct octets *o, size_t size) {
    if (o->size + size > o->capacity) {
        o->capacity = (o->size + size) * 2;
        o->data = realloc(o->data, o->capacity);
    }
    o->size += size;
    return o->data + o->size - size;
}

static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint8_t *put16(uint8_t *p, uint64_t n) { uint16_t v = htobe16((uint16_t)n); memcpy(p, &v, 2); return p + 2; }
static uint8_t *put32(uint8_t *p, uint64_t n) { uint32_t v = htobe32((uint32_t)n); memcpy(p, &v, 4); return p + 4; }
static uint8_t *put64(uint8_t *p, uint64_t n) { uint64_t v = htobe64(n); memcpy(p, &v, 8); return p + 8; }

static uint8_t *header(uint8_t *p, size_t length, unsigned type, unsigned flags, uint32_t request, uint32_t room) {
    return put32(put32(put16(put16(put32(p, length), type), flags), request), room);
}

static void touch(struct client *c) {
    if (c->touched) return;
    c->touched = true;
    if (touched_count == touched_capacity) {
        touched_capacity = touched_capacity * 2 + 64;
        touched = realloc(touched, touched_capacity * sizeof *touched);
    }
    touched[touched_count++] = c;
}

static void watch(struct client *c, bool out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* Send replies, then news, in one system call; what the socket does not take waits in `late`. */
static void hand_out(struct client *c, const uint8_t *news, size_t size) {
    struct iovec parts[2] = {{c->out.data, c->out.size}, {(void *)news, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    size_t done = 0, whole = c->out.size + size;
    if (!c->late.size) {
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) done = (size_t)n;
    }
    if (done < whole) {
        if (!c->late.size) watch(c, true);
        for (int i = 0; i < 2; i++) {
            size_t skip = done < parts[i].iov_len ? done : parts[i].iov_len, rest = parts[i].iov_len - skip;
            if (rest) memcpy(extend(&c->late, rest), (uint8_t *)parts[i].iov_base + skip, rest);
            done -= skip;
        }
    }
    c->out.size = 0;
}

static void welcome(struct client *c, const uint8_t *frame) {
    const uint8_t *body = frame + HEADER;
    size_t length = 8 + 1 + body[0] + 8 + 4 + 4 + 4 + 2 + 2 + 2;
    memcpy(c->name, body, 1u + body[0]);
    c->member = next_member++;
    uint8_t *p = header(extend(&c->out, HEADER + length), length, WELCOME, 0, get32(frame + 8), 0);
    p = put64(p, c->member);
    memcpy(p, c->name, 1u + c->name[0]);
    p = put64(p + 1 + c->name[0], now_ms);
    put16(put16(put16(put32(put32(put32(p, 1 << 17), 600000), 600000), 1024), 1024), 0);
}

static void join(struct client *c, const uint8_t *frame) {
    const uint8_t *body = frame + HEADER;
    char name[256] = "";
    uint32_t ref = 0;
    memcpy(name, body + 1, body[0]);
    while (ref < room_count && strcmp(rooms[ref].name, name)) ref++;
    struct room *room = &rooms[ref];
    if (ref == room_count) strcpy(rooms[room_count++].name, name);
    if (room->count == room->capacity) {
        room->capacity = room->capacity * 2 + 16;
        room->members = realloc(room->members, room->capacity * sizeof *room->members);
    }
    room->members[room->count++] = c;
    c->room = ref + 1;
    size_t length = 8 * 4 + 4 + 1 + body[0];
    uint8_t *p = header(extend(&c->out, HEADER + length), length, JOINED, 0, get32(frame + 8), c->room);
    p = put32(put64(put64(put64(put64(p, 1), room->seq), room->seq + 1), room->seq + 1), room->count);
    memcpy(p, body, 1u + body[0]);
}

static void publish(struct client *c, const uint8_t *frame, size_t size) {
    struct room *room = &rooms[c->room - 1];
    const uint8_t *body = frame + HEADER;
    size_t payload = size - 17, name = 1u + c->name[0], length = 8 * 3 + 17 + name + payload;
    uint8_t *p = header(extend(&room->news, HEADER + length), length, MESSAGE, 0x8000, 0, c->room);
    p = put64(put64(put64(p, ++room->seq), now_ms), c->member);
    memcpy(p, body, 17);
    memcpy(p + 17, c->name, name);
    memcpy(p + 17 + name, body + 17, payload);
    p = header(extend(&c->out, HEADER + 16), 16, ACK, 0, get32(frame + 8), c->room);
    put64(put64(p, room->seq), now_ms);
    if (room->changed) return;
    room->changed = true;
    changed[changed_count++] = c->room - 1;
}

static size_t parse(struct client *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    if (!c->greeted) {
        if (size < 8) return 0;
        c->greeted = true;
        memcpy(extend(&c->out, 8), "\xF5RWP\1\0\0\0", 8);
        at = 8;
    }
    while (size - at >= HEADER) {
        const uint8_t *frame = data + at;
        size_t length = get32(frame);
        if (size - at - HEADER < length) break;
        switch (frame[5]) {
        case HELLO: welcome(c, frame); break;
        case JOIN: join(c, frame); break;
        case PUBLISH: publish(c, frame, length); break;
        }
        at += HEADER + length;
    }
    return at;
}

static void leave(struct client *c) {
    epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    struct room *room = c->room ? &rooms[c->room - 1] : NULL;
    for (uint32_t i = 0; room && i < room->count; i++)
        if (room->members[i] == c) room->members[i] = room->members[--room->count];
    c->fd = -1; /* the rest stays: a run is short */
}

static void receive(struct client *c) {
    size_t size = c->in.size;
    if (size) memcpy(input, c->in.data, size);
    ssize_t n = recv(c->fd, input + size, sizeof input - size, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) leave(c);
        return;
    }
    size += (size_t)n;
    size_t used = parse(c, input, size);
    c->in.size = 0;
    if (used < size) memcpy(extend(&c->in, size - used), input + used, size - used);
    touch(c);
}

static void late(struct client *c) {
    ssize_t n = send(c->fd, c->late.data, c->late.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) return;
    c->late.size -= (size_t)n;
    memmove(c->late.data, c->late.data + n, c->late.size);
    if (!c->late.size) watch(c, false);
}

static void flush(void) {
    for (uint32_t i = 0; i < changed_count; i++) {
        struct room *room = &rooms[changed[i]];
        for (uint32_t m = 0; m < room->count; m++) hand_out(room->members[m], room->news.data, room->news.size);
        room->news.size = 0;
        room->changed = false;
    }
    changed_count = 0;
    for (size_t i = 0; i < touched_count; i++) {
        touched[i]->touched = false;
        if (touched[i]->out.size && touched[i]->fd >= 0) hand_out(touched[i], NULL, 0);
    }
    touched_count = 0;
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit limit;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    rooms = calloc(MOST_ROOMS, sizeof *rooms);
    poller = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct timespec t;
        int count = epoll_wait(poller, events, EVENTS, -1);
        clock_gettime(CLOCK_REALTIME, &t);
        now_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (c) {
                if (events[i].events & EPOLLOUT) late(c);
                if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
                continue;
            }
            c = calloc(1, sizeof *c);
            c->fd = accept(listener, NULL, NULL);
            event = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
            if (c->fd < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) free(c);
            else setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        }
        flush();
    }
}
