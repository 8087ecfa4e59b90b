/* Delivery and joining: SPEC.md, sections 3, 4, 9 and 11.
 *
 * One member of one room, to which others publish. The connection breaks, the server crashes, the log is trimmed, loses its
 * newest message or changes its epoch; each time the member joins again with its cursor. Each message is a unique number.
 *
 * Each rule of SPEC.md has an #ifdef of its requirement id: compiled with that id defined, the model lacks the rule.
 * tests/system/test_models.py runs each variant. The claims are the flags below; an assertion that fails names its claim.
 */

#define MESSAGES 4 /* published in all */
#define PLACES 4   /* in a log */
#define KEEP 2     /* messages that are retained */
#define EPOCHS 3

hidden byte one_order;     /* (epoch, seq) always means the same message, to everybody */
hidden byte unbroken;      /* the stream has no hole behind the client's cursor */
hidden byte no_silent_gap; /* the application gets each message once, in order, without an unreported gap */
hidden byte no_false_gap;  /* a gap is reported only when messages are gone */
hidden byte all_retained;  /* a member that joins again gets all retained messages that it has not seen */
hidden byte joined_first;  /* no message of a room's stream comes before JOINED */
hidden byte complete;      /* when nothing happens any more, the member has all messages */
hidden byte bounded;       /* no more messages are retained than set */

mtype = { JOIN, JOINED, MESSAGE, EVICTED };

/* The server: a log, and a member that is a cursor into it. */
byte epoch = 1;
byte log[PLACES + 1];
byte tail;
byte head;
byte oldest = 1;
bit attached;
byte cursor;
byte published;
byte crashes = 1;
byte losses = 1;   /* a volatile log starts again, or a copy is restored */
byte resets = 1;   /* the same, while there are members */
byte cuts = 1;
byte trims = 1;    /* by age; trimming by number is not counted */
bit lost;          /* a message was lost for any reason */

chan requests = [1] of { mtype, byte, byte };           /* JOIN, epoch, since */
chan stream = [2] of { mtype, byte, byte, bit };        /* JOINED, epoch, start, GAP; MESSAGE, seq, content; EVICTED */

/* The client. */
bit out = 1;
bit asked;         /* JOIN was sent */
bit evicted;
byte its_epoch;    /* 0: it has no cursor */
byte its_cursor;

/* The application. */
byte app_epoch;
byte app_seq;
bit seen[MESSAGES + 1];
byte stands[(EPOCHS + 1) * (PLACES + 1)]; /* the content seen at (epoch, seq) */

/* --- the server */

#ifdef RW_PROMISE_1
#define stable tail
#else
#define stable head
#endif

#ifndef RW_LAG_7
#define may_trim true
#else
#define may_trim (!attached || cursor >= oldest)
#endif

inline retain() {
    do
    :: head + 1 - oldest > KEEP && may_trim -> oldest++
    :: else -> break
    od;
    assert(bounded || head + 1 - oldest <= KEEP)
}

inline disconnect() {
    attached = 0;
    out = 1;
    asked = 0;
    do
    :: requests?_, _, _
    :: empty(requests) -> break
    od;
    do
    :: stream?_, _, _, _
    :: empty(stream) -> break
    od
}

inline drop_tail() {
    do
    :: tail > head -> log[tail] = 0; tail--
    :: else -> break
    od
}

inline lose_newest() {
    if
    :: head > 0 -> head--
    :: head = 0
    fi;
    drop_tail();
    if
    :: oldest > head + 1 -> oldest = head + 1
    :: else
    fi;
    lost = 1
}

inline where_to_start(since_epoch, since) {
#ifndef RW_CURSOR_1
    if
    :: since_epoch == 0 -> start = stable + 1
    :: since_epoch == epoch -> start = since + 1
    :: else -> start = oldest
    fi;
    if
    :: start < oldest -> start = oldest
    :: else
    fi;
#else
    start = (since_epoch == 0 -> stable + 1 : since + 1);
#endif
    if
    :: start > stable + 1 -> start = stable + 1
    :: else
    fi;
    gap = (since_epoch != 0 && (since_epoch != epoch || start != since + 1))
}

/* A member that joins for the first time does not ask for older messages. */
inline check_start() {
    at = oldest;
    do
    :: at < start && its_epoch == 0 -> seen[log[at]] = 1; at++
    :: at < start && its_epoch != 0 -> assert(all_retained || seen[log[at]]); at++
    :: else -> break
    od;
    at = 0
}

inline deliver() {
    if
    :: cursor + 1 < oldest ->
#ifndef RW_LAG_3
        attached = 0;
        stream!EVICTED, 0, 0, 0
#else
        cursor = oldest - 1
#endif
    :: else ->
#ifdef RW_MODEL_2
        if
        :: cursor + 2 <= stable -> stream!MESSAGE, cursor + 2, log[cursor + 2], 0; cursor = cursor + 2
        :: true -> cursor++; stream!MESSAGE, cursor, log[cursor], 0
        fi
#else
        cursor++;
#ifdef RW_MODEL_1
        if
        :: log[cursor] == 0
        :: else -> stream!MESSAGE, cursor, log[cursor], 0
        fi
#else
        stream!MESSAGE, cursor, log[cursor], 0
#endif
#endif
    fi
}

active proctype server() {
    byte since_epoch, since, start, at;
    bit gap;
end:
    do
    :: atomic { published < MESSAGES && tail < PLACES ->
        published++;
#ifdef RW_MODEL_1
        if
        :: tail + 1 < PLACES -> tail++
        :: true
        fi;
#endif
        tail++;
        log[tail] = published }
    :: atomic { head < tail -> head++; retain() }
    :: atomic { trims > 0 && oldest <= head -> trims--; oldest++ }
    :: atomic { nempty(requests) && nfull(stream) ->
        requests?JOIN, since_epoch, since;
        where_to_start(since_epoch, since);
        check_start();
#ifdef RW_CURSOR_5
        /* Attached when JOIN is read; JOINED comes later. */
        attached = 1;
        cursor = start - 1;
        if
        :: cursor < stable && cursor + 1 >= oldest -> deliver()
        :: true
        fi;
        nfull(stream);
#endif
        stream!JOINED, epoch, start, gap;
#ifdef RW_CURSOR_3
        /* Attached later than JOINED, to the log of that time. */
        if
        :: start == stable + 1 && published < MESSAGES && tail < PLACES && tail == head ->
            published++; tail++; log[tail] = published; head++; retain(); start = stable + 1
        :: true
        fi;
#endif
#ifdef RW_CURSOR_2
        start = stable + 1;
#endif
        attached = 1;
#ifndef RW_CURSOR_5
        cursor = start - 1;
#endif
        since_epoch = 0; since = 0; start = 0; gap = 0 }
    :: atomic { attached && cursor < stable && nfull(stream) -> deliver() }
#ifdef RW_PROMISE_9
    :: atomic { attached && cursor < stable && full(stream) -> cursor++ } /* a reader that is too slow */
#endif
    :: atomic { crashes > 0 ->
        crashes--;
        drop_tail();
#ifdef RW_MODEL_9
        if
        :: oldest == head + 1 -> head = 0; tail = 0; oldest = 1
        :: else
        fi;
#endif
#ifdef RW_MODEL_5
        epoch++;
#endif
        disconnect() }
    :: atomic { losses > 0 && head > 0 ->
        losses--;
        lose_newest();
#ifndef RW_MODEL_4
        epoch++;
#endif
        disconnect() }
    :: atomic { resets > 0 && attached && head > 0 && nfull(stream) ->
        resets--;
#ifndef RW_MODEL_6
        attached = 0;
        stream!EVICTED, 0, 0, 0;
#endif
        lose_newest();
        epoch++ }
    :: atomic { cuts > 0 && (attached || asked) -> cuts--; disconnect() }
    od
}

/* --- the client */

inline remember() {
    at = its_epoch * (PLACES + 1) + seq;
    assert(one_order || stands[at] == 0 || stands[at] == what);
    stands[at] = what;
    seen[what] = 1;
    at = 0
}

inline joined() {
    /* JOINED: `seq` is start. */
    if
    :: its_epoch == 0 -> app_epoch = what; app_seq = seq - 1
    :: else ->
        if
        :: gap || what != its_epoch || seq > its_cursor + 1 ->
            assert(no_false_gap || lost || oldest > its_cursor + 1);
#ifndef RW_PROMISE_10
            app_epoch = what;
            app_seq = seq - 1
#endif
        :: else
        fi
    fi;
#ifdef RW_CURSOR_4
    if
    :: its_epoch == 0 -> its_cursor = seq - 1
    :: else
    fi;
#else
    its_cursor = seq - 1;
#endif
    its_epoch = what;
    out = 0;
    asked = 0
}

inline receive() {
    if
    :: stream?JOINED, what, seq, gap -> joined()
    :: stream?EVICTED, _, _, _ -> out = 1; evicted = 1
    :: stream?MESSAGE, seq, what, _ ->
        assert(joined_first || !out);
        assert(unbroken || seq == its_cursor + 1);
        its_cursor = seq;
        assert(no_silent_gap || (its_epoch == app_epoch && seq == app_seq + 1));
        app_seq = seq;
        remember()
    fi;
    seq = 0; what = 0; gap = 0
}

#ifndef RW_LAG_4
#define may_join true
#else
#define may_join (!evicted)
#endif

active proctype client() {
    byte seq, what, at;
    bit gap;
end:
    do
    :: atomic { out && !asked && nfull(requests) && may_join ->
        asked = 1;
#ifdef RW_RECOVER_1
        requests!JOIN, 0, 0
#else
        requests!JOIN, its_epoch, its_cursor
#endif
        }
    :: atomic { nempty(stream) -> receive() }
    od
}

active proctype quiet() {
    timeout -> assert(complete || (!out && its_epoch == epoch && its_cursor == head))
}
