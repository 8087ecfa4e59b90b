"""Sections 4, 7.4, 10 and 11: publishing, ids, repeats, order, and coming back."""

from dataclasses import replace

from conformance.client.cases.steps import case
from conformance.client.context import NOW_MS, Context, Room
from conformance.client.raw_server import RawServer
from conformance.wire.octets import frame
from protocol.frames import Evicted, Goaway, Join, Publish
from protocol.registry import Code, Flag

_SKEW_MS = 5000  # what a client's way from WELCOME to a publish may take


@case("7.15/content", "RW-PROMISE-5", "RW-MODEL-8")
async def content(t: Context) -> None:
    """A publish goes to the ref of its room, octet for octet; an empty payload too."""
    server, room = await t.member()
    for payload in (b"", b"\x00\xff\xfe", bytes(range(256)) * 20):
        publish = await t.published(server, room, payload)
        t.require((publish.room, publish.ctype) == (room.ref, 1), f"room {room.ref}, ctype 1", publish, "RW-MODEL-8")


@case("10.1/ids", "RW-ID-1")
async def ids(t: Context) -> None:
    """Ids have the time of the server's clock, and 80 bits that differ from message to message."""
    server, room = await t.member()
    for n in range(16):
        t.publish(room, bytes([n]))
    publishes = [await server.expect(Publish) for _ in range(16)]
    for publish in publishes:
        time_ms = int.from_bytes(publish.id[:6], "big")
        near = -50 <= time_ms - NOW_MS <= _SKEW_MS
        t.require(near, f"a time from {NOW_MS} on, the server's", publish.id.hex())
    tails = [publish.id[6:] for publish in publishes]
    t.require(len(set(tails)) == 16, "16 different random parts", [tail.hex() for tail in tails])
    for at in range(10):  # an octet that never changes is none of 80 random bits: a chance of 256 to the -15
        values = {tail[at] for tail in tails}
        t.require(len(values) > 1, f"random bits in octet {at + 6}", [tail.hex() for tail in tails])


@case("10.1/clock-follows", "RW-ID-1")
async def clock_follows(t: Context) -> None:
    """On a new connection the clock is that of its WELCOME."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    await server.close()
    server = await t.reopened(now_ms=NOW_MS + 10**9)
    again = t.room(room.name)
    await t.rejoin(server, again)
    publish = await t.published(server, again)
    time_ms = int.from_bytes(publish.id[:6], "big") - NOW_MS - 10**9
    t.require(-50 <= time_ms <= _SKEW_MS, "a time of the new clock", publish.id.hex())


@case("7.4/waits", "RW-ERROR-2", "RW-PROMISE-5", tags=["waits"])
async def waits(t: Context) -> None:
    """A publish that was refused with RETRY is not sent again before retry_ms has passed, and is the same then."""
    t.needs("repeat")
    server, room = await t.member()
    id = t.publish(room, b"patience")
    publish = await server.expect(Publish)
    for wait in (300, 600):
        began = server.now()
        server.send(t.refusal(publish, Code.RATE_LIMITED, wait))
        again = await server.expect(Publish, "RW-ERROR-2")
        waited = (server.now() - began) * 1000
        t.require(waited >= wait, f"at least {wait} ms", f"{waited:.0f} ms")
        t.require(again.id == publish.id, f"id {publish.id.hex()}", again.id.hex(), "RW-PROMISE-5")
        publish = again
    server.send(t.ack(room, publish))
    await t.answer(id, "published", requirement="RW-ERROR-2")


@case("7.4/join-waits", "RW-ERROR-2", tags=["waits"])
async def join_waits(t: Context) -> None:
    """A JOIN that was refused with RETRY is not sent again before retry_ms has passed."""
    server = await t.open()
    t.client.tell("join", room="lobby")
    join = await server.expect(Join)
    began = server.now()
    server.send(t.refusal(join, Code.RATE_LIMITED, 500))
    await t.idle(server, 0.45)
    early = server.left_over(Join)
    t.require(not early, "no JOIN within 450 ms", f"{early} after {server.now() - began:.3f} s")


@case("7.4/final", "RW-ERROR-3", "RW-PROMISE-6")
async def final(t: Context) -> None:
    """A publish that was refused without RETRY has failed: it is not repeated, and not reported as unknown."""
    server, room = await t.member()
    for code in (Code.PAYLOAD_INVALID, Code.ID_CONFLICT, Code.FORBIDDEN, Code.ID_EXPIRED):
        id = t.publish(room)
        publish = await server.expect(Publish)
        server.send(t.refusal(publish, code))
        report = await t.answer(id, "error", requirement="RW-ERROR-3")
        t.require(report.get("code") == code, f"code {int(code)}", report)
        t.require(report.get("unknown") is not True, "a failure that is none of doubt", report, "RW-PROMISE-6")
    await t.marker(server, room)
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))


async def _lost(t: Context, payloads: tuple[bytes, ...], **limits: int) -> tuple[Room, list[int], list[Publish]]:
    """Publishes that the server read and did not answer before the connection broke; the client is to come back."""
    server, room = await t.member(next=5, **limits)
    await t.marker(server, room)
    ids = [t.publish(room, payload) for payload in payloads]
    async with t.control("publishing"):
        publishes = [await server.expect(Publish) for _ in payloads]
    await server.close()
    return room, ids, publishes


async def _back(t: Context, room: Room, **limits: int) -> tuple[RawServer, Room, Join]:
    server = await t.reopened(**limits)
    again = t.room(room.name, next=room.next)
    return server, again, await t.rejoin(server, again)


@case("11/cursor", "RW-RECOVER-1", "RW-MODEL-8")
async def cursor(t: Context) -> None:
    """After a lost connection the client joins each room again with its cursor, and uses the new refs."""
    t.needs("reconnect", "rejoin")
    server, one = await t.member(next=41)
    two = t.room("two", next=7, epoch=2**64 - 2)
    await t.join(server, two)
    await t.marker(server, one)
    await t.marker(server, one)
    await server.close(abort=True)
    server = await t.reopened()
    joins = {}
    for _ in range(2):
        join = await server.expect(Join, "RW-RECOVER-1")
        joins[join.name] = join.epoch, join.since
        again = t.room(join.name, next=join.since + 1, epoch=join.epoch)
        server.send(t.joined(again, join))
    wanted = {"lobby": (7, 42), "two": (2**64 - 2, 6)}
    t.require(joins == wanted, f"cursors {wanted}", joins)
    publish = t.publish(two)
    frame = await server.expect(Publish, "RW-MODEL-8")
    t.require(frame.room in server.invariants.refs, "a ref of this connection", frame, "RW-MODEL-8")
    server.send(t.ack(again, replace(frame)))
    await t.answer(publish, "published")


@case("11/cursor-of-unknown", "RW-RECOVER-1", "RW-TYPE-5")
async def cursor_of_unknown(t: Context) -> None:
    """Unknown sequenced frames, and messages that came twice, count in the cursor as once seen."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(frame(0x8040, bytes(7) + b"\x02more", flags=0x8000, room=room.ref))
    server.send(room.again(1), room.again(2))
    await server.fence()
    await server.close()
    server = await t.reopened()
    join = await server.expect(Join, "RW-RECOVER-1")
    t.require((join.epoch, join.since) == (7, 2), "epoch 7, since 2", join)


@case("11/shown-once", "RW-RECOVER-3", "RW-MODEL-10")
async def shown_once(t: Context) -> None:
    """Messages that the server sends again after a reconnect are shown once; those of a new epoch are others."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    server.send(room.message(), room.message())
    await t.marker(server, room)
    await server.close()
    server = await t.reopened()
    again = t.room(room.name, next=2)
    await t.rejoin(server, again, head=3)
    server.send(again.message(), again.message())
    await t.marker(server, again, "RW-RECOVER-3")
    t.require(t.seqs(room) == ["1", "2", "3", "4"], "messages 1 to 4, each once", t.seqs(room))
    await server.close()
    server = await t.reopened(within=t.options.timeout + 4)
    anew = t.room(room.name, epoch=8)
    await t.rejoin(server, anew, flags=Flag.GAP)
    await t.marker(server, anew, "RW-MODEL-10")
    found = [(r.get("epoch"), r.get("seq")) for r in t.messages(room)]
    t.require(found[4:] == [("8", "1")], "message 1 of epoch 8", found, "RW-MODEL-10")


@case("10.3/repeats-first", "RW-ORDER-3", "RW-PROMISE-5")
async def repeats_first(t: Context) -> None:
    """On a new connection what is unanswered is repeated first, with the same ids, in the order of first sending."""
    t.needs("reconnect", "rejoin", "repeat")
    room, ids, publishes = await _lost(t, (b"1", b"2", b"3"))
    ids.append(t.publish(room, b"4"))
    server, again, _ = await _back(t, room)
    repeats = [await server.expect(Publish, "RW-ORDER-3") for _ in ids]
    found = [publish.payload for publish in repeats]
    t.require(found == [b"1", b"2", b"3", b"4"], "1, 2, 3, then the new 4", found)
    same = [publish.id for publish in repeats[:3]] == [publish.id for publish in publishes]
    t.require(same, "the ids of before", [publish.id.hex() for publish in repeats], "RW-PROMISE-5")
    server.send(*(t.ack(again, publish) for publish in repeats))
    for id in ids:
        await t.answer(id, "published", requirement="RW-ORDER-3")


@case("10.2/duplicate", "RW-PROMISE-5")
async def duplicate(t: Context) -> None:
    """An ACK with DUPLICATE, and with a seq below the cursor, is the ACK of the first copy."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], _ = await _lost(t, (b"twice",))
    server, again, _ = await _back(t, room)
    repeat = await server.expect(Publish)
    server.send(replace(t.ack(again, repeat, flags=Flag.DUPLICATE), seq=3))
    report = await t.answer(id, "published", requirement="RW-PROMISE-5")
    t.require(report.get("seq") == "3", "seq 3", report)
    await server.fence()


@case("11/own-message-acknowledges", "RW-RECOVER-2")
async def own_message(t: Context) -> None:
    """Finding its own id in a MESSAGE, a client takes the publish as acknowledged."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], [publish] = await _lost(t, (b"there",))
    server = await t.reopened()
    again = t.room(room.name, next=room.next)
    async with t.control("joining again"):
        join = await server.expect(Join)
        server.send(t.joined(again, join, head=room.next), t.echo(again, publish, again.next))
    report = await t.answer(id, "published", requirement="RW-RECOVER-2")
    t.require(report.get("seq") == str(room.next), f"seq {room.next}", report)


@case("10.2/never-blindly", "RW-DEDUPE-7", "RW-PROMISE-6")
async def never_blindly(t: Context) -> None:
    """With dedupe_ms 0 a publish that was not answered is not repeated; it is reported as unknown."""
    t.needs("reconnect", "rejoin")
    room, [id], _ = await _lost(t, (b"once",), dedupe_ms=0)
    server, again, _ = await _back(t, room, dedupe_ms=0)
    await t.marker(server, again)
    await server.fence()
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))
    report = await t.answer(id, "error", requirement="RW-PROMISE-6")
    t.require(report.get("unknown") is True, "unknown: true", report, "RW-PROMISE-6")


@case("10.2/not-given-up-early", "RW-DEDUPE-8", "RW-DEDUPE-7")
async def not_given_up_early(t: Context) -> None:
    """With dedupe_ms 0 the stream up to head may still hold the message: until then it is not given up."""
    t.needs("reconnect", "rejoin")
    room, [id], [publish] = await _lost(t, (b"once",), dedupe_ms=0)
    server = await t.reopened(dedupe_ms=0)
    again = t.room(room.name, next=room.next)
    join = await server.expect(Join)
    server.send(t.joined(again, join, head=room.next + 1))
    server.send(again.message(b"of another"))
    await server.fence()
    server.send(t.echo(again, publish, again.next))
    report = await t.answer(id, "published", "error", requirement="RW-DEDUPE-8")
    t.require(report.get("event") == "published", "published, as the stream says", report, "RW-DEDUPE-8")


@case("4/unknown-when-given-up", "RW-PROMISE-6")
async def unknown_when_given_up(t: Context) -> None:
    """A publish of which a copy was never answered is unknown, although another copy was refused for good."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], _ = await _lost(t, (b"doubt",))
    server, _, _ = await _back(t, room)
    repeat = await server.expect(Publish)
    server.send(t.refusal(repeat, Code.ID_EXPIRED))
    report = await t.answer(id, "error", requirement="RW-PROMISE-6")
    t.require(report.get("unknown") is True, "unknown: true", report)


@case("4/unknown-at-quit", "RW-PROMISE-6")
async def unknown_at_quit(t: Context) -> None:
    """A publish that waits for its answer when the application quits is unknown, if anything; it has not failed."""
    server, room = await t.member()
    id = t.publish(room)
    await server.expect(Publish)
    t.client.tell("quit")
    await server.expect(Goaway)
    await server.close()
    await t.report("closed")
    answers = [r for r in t.client.reports if r.get("id") == id]
    wrong = [r for r in answers if r.get("event") != "error" or r.get("unknown") is not True]
    t.require(not wrong, "unknown: true, if anything", wrong)


@case("10.3/from-the-first-refused", "RW-ORDER-2")
async def from_the_first_refused(t: Context) -> None:
    """After an ERROR the client waits for all replies, then repeats from the first refused on, that without ORDERED."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    ids = [t.publish(room, payload) for payload in (b"1", b"2", b"3", b"4")]
    one, two, three, four = [await server.expect(Publish) for _ in ids]
    t.require(all(p.flags & Flag.ORDERED for p in (two, three, four)), "the flag ORDERED", two.flags)
    server.send(t.ack(room, one), t.refusal(two, Code.RATE_LIMITED, 50), t.refusal(three, Code.PRECEDED))
    await t.idle(server, 0.2)
    early = server.left_over(Publish)
    t.require(not early, "no repeat before the last reply", early)
    server.send(t.refusal(four, Code.PRECEDED))
    repeats = [await server.expect(Publish, "RW-ORDER-2")]
    t.require(repeats[0].id == two.id and not repeats[0].flags & Flag.ORDERED, "2 without ORDERED", repeats[0])
    await server.fence()
    together = server.left_over(Publish)
    server.send(t.ack(room, repeats[0]))
    t.require(not together, "the first one alone after RATE_LIMITED", together, "RW-ORDER-4")
    repeats += [await server.expect(Publish, "RW-ORDER-2") for _ in range(2)]
    t.require([p.id for p in repeats] == [two.id, three.id, four.id], "2, 3, 4", [p.payload for p in repeats])
    server.send(*(t.ack(room, publish) for publish in repeats[1:]))
    for id in ids:
        await t.answer(id, "published", requirement="RW-ORDER-2")


@case("10.3/refused-for-good", "RW-ORDER-2")
async def refused_for_good(t: Context) -> None:
    """What was refused for good is left out; what followed it is repeated, the first without ORDERED."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    ids = [t.publish(room, payload) for payload in (b"1", b"2", b"3")]
    one, two, three = [await server.expect(Publish) for _ in ids]
    server.send(t.refusal(one, Code.FORBIDDEN), t.refusal(two, Code.PRECEDED, 1), t.refusal(three, Code.PRECEDED, 1))
    await t.answer(ids[0], "error")
    again = await server.expect(Publish, "RW-ORDER-2")
    t.require(again.id == two.id and not again.flags & Flag.ORDERED, "2 without ORDERED", again)
    server.send(t.ack(room, again))
    last = await server.expect(Publish, "RW-ORDER-2")
    t.require(last.id == three.id, "3", last.payload)
    server.send(t.ack(room, last))
    await t.answer(ids[2], "published", requirement="RW-ORDER-2")


@case("10.3/one-alone", "RW-ORDER-4")
async def one_alone(t: Context) -> None:
    """After RATE_LIMITED the first publish is sent alone, and the others when it is acknowledged."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    for payload in (b"1", b"2", b"3"):
        t.publish(room, payload)
    publishes = [await server.expect(Publish) for _ in range(3)]
    server.send(*(t.refusal(publish, Code.RATE_LIMITED, 50) for publish in publishes))
    first = await server.expect(Publish, "RW-ORDER-4")
    await t.idle(server, 0.1)
    await server.fence()
    t.require(not server.left_over(Publish), "the first one alone", server.left_over(Publish))
    server.send(t.ack(room, first))
    await server.expect(Publish, "RW-ORDER-4")


@case("9.4/evicted-keeps-ids", "RW-PROMISE-5", "RW-ORDER-3", "RW-REQUEST-7")
async def evicted_keeps_ids(t: Context) -> None:
    """An eviction changes nothing about what was published before it: its ACK still counts, once."""
    t.needs("rejoin")
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Evicted(Code.LAGGED, flags=Flag.RETRY, room=room.ref), t.ack(room, publish))
    again = t.room(room.name, next=1)
    await t.answer(id, "published", requirement="RW-REQUEST-7")
    join = await server.expect(Join)
    server.send(t.joined(again, join, head=1), t.echo(again, publish, 1))
    again.next = 2
    await t.marker(server, again)
    published = t.client.of("published")
    t.require(len(published) == 1, "one report", published)
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))
