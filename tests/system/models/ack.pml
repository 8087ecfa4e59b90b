/* ACK before echo, and the absence of deadlocks: SPEC.md, sections 4 and 6.
 *
 * One client publishes, pipelined, to two rooms. Others publish to them, too. The log of each room becomes durable
 * independently. Replies and the streams of both rooms share one connection with a small buffer, and so do the requests.
 *
 * Each rule of SPEC.md has an #ifdef of its requirement id: compiled with that id defined, the model lacks the rule.
 * tests/system/test_models.py runs each variant. The claims are the flags below; an assertion that fails names its claim.
 */

#define ROOMS 2
#define REQUESTS 4
#define WINDOW 3
#define OTHERS 1 /* publishes of others to each room */
#define PLACES 6

hidden byte ack_first;        /* a publisher sees the ACK before its own message */
hidden byte replies_in_order; /* replies are in the order of the requests */
hidden byte never_stuck;      /* when nothing can happen any more, everything has arrived */

mtype = { ACK, MESSAGE };

typedef Room {
    byte log[PLACES + 1];  /* the request that published the message; 0: of another client */
    byte tail;
    byte head;             /* the last seq that is durable */
    byte cursor;           /* the last seq that is written to the connection */
    byte others = OTHERS;
}

Room rooms[ROOMS];
bit acknowledged[REQUESTS + 1]; /* the ACK of the request is written */

chan requests = [1] of { byte, byte };             /* request, room */
chan due = [WINDOW] of { byte, byte, byte };       /* request, room, seq: replies, in the order of the requests */
chan connection = [2] of { mtype, byte };          /* ACK or MESSAGE, request */

byte sent;
byte answered;
byte echoed;

/* --- the server */

#ifndef RW_PROMISE_11
#define held(room) (rooms[room].log[rooms[room].cursor + 1] != 0 && !acknowledged[rooms[room].log[rooms[room].cursor + 1]])
#else
#define held(room) (false)
#endif

#ifndef RW_PROMISE_12
#define may_reply(room, seq) (true)
#else
/* All messages that are durable are written first. */
#define may_reply(room, seq) (rooms[room].cursor + 1 >= seq && rooms[1 - room].cursor == rooms[1 - room].head)
#endif

#define first_due(room, seq) (due?[_, room, seq] && rooms[room].head >= seq && may_reply(room, seq))
#define reply_is_due (first_due(0, 1) || first_due(0, 2) || first_due(0, 3) || first_due(0, 4) || first_due(0, 5) || \
    first_due(1, 1) || first_due(1, 2) || first_due(1, 3) || first_due(1, 4) || first_due(1, 5))

inline append(room, request) {
    rooms[room].tail++;
    rooms[room].log[rooms[room].tail] = request
}

inline write_stream(room) {
    rooms[room].cursor++;
    connection!MESSAGE, rooms[room].log[rooms[room].cursor]
}

active proctype server() {
    byte request, room, seq;
end:
    do
    :: atomic { nempty(requests) && nfull(due) && nfull(connection) ->
        requests?request, room;
        append(room, request);
        due!request, room, rooms[room].tail;
        request = 0; room = 0 }
    :: atomic { reply_is_due && nfull(connection) ->
        due?request, room, seq;
#ifdef RW_REQUEST_2
        if
        :: connection!ACK, request
        :: true
        fi;
#else
        connection!ACK, request;
#endif
        acknowledged[request] = 1;
        request = 0; room = 0; seq = 0 }
#ifdef RW_REQUEST_3
    :: atomic { len(due) > 1 -> due?request, room, seq; due!request, room, seq; request = 0; room = 0; seq = 0 }
#endif
    :: atomic { rooms[0].cursor < rooms[0].head && nfull(connection) && !held(0) -> write_stream(0) }
    :: atomic { rooms[1].cursor < rooms[1].head && nfull(connection) && !held(1) -> write_stream(1) }
    :: atomic { rooms[0].head < rooms[0].tail -> rooms[0].head++ }
    :: atomic { rooms[1].head < rooms[1].tail -> rooms[1].head++ }
    :: atomic { rooms[0].others > 0 -> rooms[0].others--; append(0, 0) }
    :: atomic { rooms[1].others > 0 -> rooms[1].others--; append(1, 0) }
    od
}

/* --- the client */

#ifndef RW_HEARTBEAT_4
#define may_read true
#else
#define may_read (sent == REQUESTS || sent - answered == WINDOW) /* only when it has nothing to write */
#endif

inline receive() {
    if
    :: connection?ACK, request ->
        assert(replies_in_order || request == answered + 1);
        answered++;
        got[request] = 1
    :: connection?MESSAGE, request ->
        assert(ack_first || request == 0 || got[request]);
        echoed++
    fi;
    request = 0
}

active proctype client() {
    byte request;
    bit got[REQUESTS + 1];
end:
    do
    :: atomic { sent < REQUESTS && sent - answered < WINDOW && nfull(requests) ->
        sent++;
        if
        :: requests!sent, 0
        :: requests!sent, 1
        fi }
    :: atomic { nempty(connection) && may_read -> receive() }
    od
}

active proctype quiet() {
    timeout -> assert(never_stuck || (answered == REQUESTS && echoed == REQUESTS + ROOMS * OTHERS))
}
