/* Publishing and repeating: SPEC.md, sections 4 and 10.
 *
 * One client publishes MESSAGES messages to one room, in order and pipelined. The network loses connections; the server
 * crashes, refuses publishes, and lets ids expire. The server may still read requests of a lost connection. A message is
 * a number, and so is its id.
 *
 * Each rule of SPEC.md has an #ifdef of its requirement id: compiled with that id defined, the model lacks the rule.
 * tests/system/test_models.py runs each variant. The claims are the flags below; an assertion that fails names its claim.
 */

#define MESSAGES 2
#define WINDOW 2
#define CONNECTIONS 3 /* one after the other */
#define CRASHES 1
#define REFUSALS 2

hidden byte acknowledged_stays; /* an acknowledged message is in the log, at the seq of its ACK */
hidden byte once;               /* no message is in the log twice */
hidden byte in_order;           /* the log has the messages in the order in which they were first sent */
hidden byte failed_is_absent;   /* a message that was reported as failed is not in the log, and never will be */
hidden byte prefix;             /* a crash leaves a prefix of the log */

mtype = { ACK, RATE_LIMITED, PRECEDED, ID_EXPIRED };

/* The states of a publish in the client. From ACKNOWLEDGED on they are final. */
#define NEW 0
#define SENT 1
#define REFUSED 2
#define UNANSWERED 3
#define ACKNOWLEDGED 4
#define FAILED 5
#define UNKNOWN 6

/* The server. A seq is a place in the log, from 1. */
byte log[MESSAGES + 1];
byte log_id[MESSAGES + 1];
byte tail;                  /* the last seq */
byte head;                  /* the last seq that is durable */
bit stable[MESSAGES + 1];   /* only without RW-PROMISE-3 */
bit known[2 * MESSAGES];    /* the index of ids */
bit refused[CONNECTIONS];   /* the previous PUBLISH of this membership was answered with ERROR */
bit late;                   /* dedupe_ms has passed since ids with born == 0 were made */
bit born[2 * MESSAGES];
byte refusals = REFUSALS;
byte crashes = CRASHES;

/* The network. Replies wait in their order until they are due. */
chan requests[CONNECTIONS] = [WINDOW] of { byte, byte, bit }; /* id, message, ORDERED */
chan replies = [WINDOW] of { mtype, byte, byte, bit };        /* kind, message, seq, DUPLICATE */

/* The client. */
byte connection;
byte state[MESSAGES];
byte place[MESSAGES];
bit unheard[MESSAGES];   /* a sent copy was not answered */
byte under_way;       /* the number of publishes in state SENT */
bit waiting;          /* after an ERROR, for the replies to all publishes */
bit bare;             /* the next publish is sent without ORDERED */

#ifndef RW_PROMISE_3
#define durable(seq) (seq <= head)
#else
#define durable(seq) (stable[seq])
#endif

inline find(message, at) {
    at = 1;
    do
    :: at <= tail && log[at] != message -> at++
    :: else -> break
    od
}

inline find_id(id, at) {
    at = 1;
    do
    :: at <= tail && log_id[at] != id -> at++
    :: else -> break
    od
}

/* --- the server */

inline append(id, message) {
    find(message, i);
    assert(once || i > tail);
    i = 1;
    do
    /* A client that gives up on a message and sends the next one gives up their order. */
    :: i <= tail -> assert(in_order || log[i] < message || state[message] == UNKNOWN); i++
    :: else -> break
    od;
    assert(failed_is_absent || state[message] != FAILED);
    tail++;
    log[tail] = message;
    log_id[tail] = id;
    known[id] = 1
}

/* Replies go only to the current connection: those of older connections are not read. */
inline reply(c, kind, message, seq, duplicate) {
    if
    :: c == connection -> replies!kind, message, seq, duplicate
    :: else
    fi
}

inline refuse(c, kind, message) {
    refused[c] = 1;
    reply(c, kind, message, 0, 0)
}

inline drop_requests(c) {
    do
    :: requests[c]?_, _, _
    :: empty(requests[c]) -> break
    od
}

inline lose_connection() {
    do
    :: replies?_, _, _, _
    :: empty(replies) -> break
    od;
    i = 0;
    do
    :: i < MESSAGES ->
        if
        :: state[i] == SENT -> state[i] = UNANSWERED; unheard[i] = 1
        :: state[i] == REFUSED -> state[i] = UNANSWERED
        :: else
        fi;
        i++
    :: else -> break
    od;
    under_way = 0;
    waiting = 0;
    bare = 0;
    connection++
}

inline crash() {
#ifdef RW_PROMISE_2
    if
    :: head > 0 -> head--
    :: head == 0
    fi;
#endif
#ifdef RW_PROMISE_3
    i = 1;
    do
    :: i < tail -> assert(prefix || stable[i] || !stable[i + 1]); i++
    :: else -> break
    od;
    head = 0;
    do
    :: head < tail && stable[head + 1] -> head++
    :: else -> break
    od;
#endif
    i = 0;
    do
    :: i < MESSAGES -> assert(acknowledged_stays || state[i] != ACKNOWLEDGED || place[i] <= head); i++
    :: else -> break
    od;
    do
    :: tail > head ->
        known[log_id[tail]] = 0;
        log[tail] = 0;
        log_id[tail] = 0;
        tail--
    :: else -> break
    od;
#ifdef RW_DEDUPE_3
    i = 0;
    do
    :: i < 2 * MESSAGES -> known[i] = 0; i++
    :: else -> break
    od;
#endif
    i = 0;
    do
    :: i <= connection -> drop_requests(i); refused[i] = 0; i++
    :: else -> break
    od;
#ifdef RW_ID_4
    late = 0;
#endif
    lose_connection();
    crashes--
}

#ifndef RW_ID_2
#define expired(id) (late && !born[id])
#else
#define expired(id) (false)
#endif

#ifndef RW_ORDER_1
#define preceded(c) (ordered && refused[c])
#else
#define preceded(c) (false)
#endif

#ifndef RW_DEDUPE_1
#ifndef RW_DEDUPE_4
#define repeated(id) (known[id])
#else
#define repeated(id) (known[id] && durable(seq)) /* not looked up among those that are not yet durable */
#endif
#else
#define repeated(id) (false)
#endif

inline read(c) {
#ifdef RW_PROMISE_8
    if
    :: len(requests[c]) > 1 -> requests[c]?id, message, ordered; requests[c]!id, message, ordered
    :: true
    fi;
#endif
    requests[c]?id, message, ordered;
    find_id(id, seq);
    if
    :: repeated(id) -> refused[c] = 0; reply(c, ACK, message, seq, 1)
    :: else ->
        if
        :: expired(id) -> refuse(c, ID_EXPIRED, message)
        :: else ->
            if
            :: preceded(c) -> refuse(c, PRECEDED, message)
            :: !preceded(c) && refusals > 0 ->
                refusals--;
#ifdef RW_PROMISE_4
                append(id, message);
#endif
                refuse(c, RATE_LIMITED, message)
            :: !preceded(c) -> append(id, message); refused[c] = 0; reply(c, ACK, message, tail, 0)
            fi
        fi
    fi;
    id = 0; message = 0; ordered = 0; seq = 0; i = 0
}

#ifndef RW_DEDUPE_6
#define forgettable(id) (known[id] && late && !born[id])
#else
#define forgettable(id) (known[id])
#endif

active proctype server() {
    byte id, message, seq, i;
    bit ordered;
end:
    do
    :: atomic { connection >= 0 && nempty(requests[0]) -> read(0) }
    :: atomic { connection >= 1 && nempty(requests[1]) -> read(1) }
    :: atomic { connection >= 2 && nempty(requests[2]) -> read(2) }
#ifndef RW_PROMISE_3
    :: atomic { head < tail -> head++ }
#else
    :: atomic { tail >= 1 && !stable[1] -> stable[1] = 1 }
    :: atomic { tail >= 2 && !stable[2] -> stable[2] = 1 }
#endif
    :: atomic { crashes > 0 && connection + 1 < CONNECTIONS -> crash(); i = 0 }
#ifdef RW_PROMISE_7
    /* A flush fails and is answered with ERROR; after the restart the batch may or may not be in the log. */
    :: atomic { crashes > 0 && connection + 1 < CONNECTIONS && head < tail && state[log[tail]] == SENT ->
        message = log[tail];
        if
        :: head = tail
        :: true
        fi;
        crash();
        state[message] = REFUSED;
        unheard[message] = 0;
        message = 0; i = 0 }
#endif
    /* The connection breaks, and the server keeps running. */
    :: atomic { connection + 1 < CONNECTIONS -> lose_connection(); i = 0 }
    :: atomic { !late -> late = 1 }
    :: atomic { forgettable(0) -> known[0] = 0 }
    :: atomic { forgettable(1) -> known[1] = 0 }
    od
}

/* --- the client */

#define unfinished(message) (state[message] == NEW || state[message] == REFUSED || state[message] == UNANSWERED)

#define tried(message) (state[message] == REFUSED || state[message] == UNANSWERED)

inline first_unsent(message) {
    message = 0;
    do
    :: message < MESSAGES && !unfinished(message) -> message++
    :: else -> break
    od
#ifdef RW_ORDER_3
    ;
    if
    :: message + 1 < MESSAGES && state[message] == UNANSWERED && state[message + 1] == NEW -> message++
    :: true
    fi
#endif
}

inline send(message) {
    id = message;
#ifdef RW_PROMISE_5
    if
    :: state[message] != NEW -> id = message + MESSAGES
    :: else
    fi;
#endif
    if
    :: state[message] == NEW -> born[id] = late
    :: else
    fi;
#ifdef RW_ORDER_2
    bare = (state[message] == REFUSED);
#endif
    requests[connection]!id, message, !bare;
    bare = 0;
    state[message] = SENT;
    under_way++
}

inline give_up(message) {
    if
#ifndef RW_PROMISE_6
    :: unheard[message] -> state[message] = UNKNOWN
    :: !unheard[message] -> state[message] = FAILED
#else
    :: state[message] = FAILED
#endif
    fi;
    find(message, i);
    assert(failed_is_absent || state[message] != FAILED || i > tail)
}

inline receive() {
    replies?kind, message, seq, duplicate;
    under_way--;
    if
    :: kind == ACK ->
        state[message] = ACKNOWLEDGED;
        place[message] = seq;
        assert(acknowledged_stays || log[seq] == message)
    :: kind == ID_EXPIRED -> give_up(message)
    :: else -> state[message] = REFUSED
    fi;
    if
    :: kind == ACK
    :: else ->
#ifndef RW_ORDER_2
        waiting = 1
#endif
    fi;
    if
    :: waiting && under_way == 0 -> waiting = 0; bare = 1
    :: else
    fi
}

/* Whether the first reply is an ACK of this seq that may be written. */
#ifdef RW_PROMISE_1
#define due(seq) (replies?[ACK, _, seq, _])
#else
#ifdef RW_DEDUPE_5
#define due(seq) (replies?[ACK, _, seq, 1] || (replies?[ACK, _, seq, 0] && durable(seq)))
#else
#define due(seq) (replies?[ACK, _, seq, _] && durable(seq))
#endif
#endif

active proctype client() {
    byte id, message, seq, i;
    mtype kind;
    bit duplicate;
    do
    :: atomic { !waiting && under_way < WINDOW && (unfinished(0) || unfinished(1)) ->
        first_unsent(message);
        send(message);
        id = 0; message = 0 }
    :: atomic { nempty(replies) && (!replies?[ACK, _, _, _] || due(1) || due(2)) ->
        receive();
        kind = 0; message = 0; seq = 0; duplicate = 0; i = 0 }
    /* The application stops waiting. */
    :: atomic { !waiting && under_way == 0 && (tried(0) || tried(1)) ->
        first_unsent(message);
        give_up(message);
        message = 0; i = 0 }
    :: atomic { state[0] >= ACKNOWLEDGED && state[1] >= ACKNOWLEDGED -> break }
    od
}
