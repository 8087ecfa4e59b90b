"""Sections 7.15, 7.16 and 7.17: publishing, acknowledging, delivering."""

from conformance.server.cases.steps import IGNORABLE, SERVER, case, content, expect_refusal, publish
from conformance.server.context import Context
from conformance.wire.octets import encode
from protocol.frames import Ack, Error, Field, Message, Publish
from protocol.registry import CONTENT_RESERVE, Code


@case("7.15/echo", "RW-PUBLISH-4", "RW-MESSAGE-1", "RW-ACK-2")
async def echo(t: Context) -> None:
    """The server sends what was published to all members, the sender included, with the ACK's seq and time."""
    sender, joined = await t.member()
    reader, _ = await t.member(joined.name)
    id, payload = t.id(sender), "Grüße, 世界 \U0001f98a".encode()
    ack = await t.publish(sender, joined.room, payload, id=id)
    t.require(ack.seq == 1, "seq 1 for the first message", ack.seq, "RW-MODEL-1")
    for client in (sender, reader):
        message = (await client.until(joined.room, id, "RW-MESSAGE-1"))[-1]
        found = (message.seq, message.time_ms)
        t.require(
            found == (ack.seq, ack.time_ms),
            f"seq and time of the ACK, {ack.seq} {ack.time_ms}",
            found,
            "RW-ACK-2",
        )
        who = (message.sender, message.name)
        wanted = (sender.welcome.member, sender.welcome.name)
        t.require(who == wanted, f"sender {wanted}", who, "RW-MESSAGE-1")
        t.require(message.payload == payload and message.ctype == 0, "the payload as it was sent", message.payload)


_CONTENTS: list[tuple[str, str, int, bytes, str]] = [
    ("empty-text", "an empty text", 0, b"", "RW-PUBLISH-3"),
    ("empty-octets", "an empty payload of octets", 1, b"", "RW-PUBLISH-3"),
    ("octets", "all 256 octets", 1, bytes(range(256)), "RW-PUBLISH-4"),
    (
        "unknown-ctype",
        "a ctype that it does not know, with octets that are not UTF-8",
        200,
        b"\xff\xfe\x00",
        "RW-PUBLISH-3",
    ),
    ("last-ctype", "ctype 255", 255, b"x", "RW-PUBLISH-3"),
    (
        "controls",
        "a text with control characters and U+FFFF",
        0,
        "\x00\x1b[31m\u202e\uffff\ufeff".encode(),
        "RW-PUBLISH-4",
    ),
    ("not-normalised", "a text that is not in NFC", 0, "e\u0301".encode(), "RW-PUBLISH-4"),
    ("greatest-character", "the text U+10FFFF", 0, "\U0010ffff".encode(), "RW-PUBLISH-4"),
]


def _define_content(path: str, what: str, ctype: int, payload: bytes, requirement: str) -> None:
    async def run(t: Context) -> None:
        client, joined = await t.member(fresh=False)
        id = t.id(client)
        reply = await t.patiently(client, Publish(id, ctype, payload, room=joined.room))
        t.require(isinstance(reply, Ack), "ACK", reply, requirement)
        message = (await client.until(joined.room, id))[-1]
        found = (message.ctype, message.payload)
        t.require(found == (ctype, payload), f"ctype and payload {(ctype, payload)}", found, "RW-PUBLISH-4")

    SERVER.add(f"7.15/content-{path}", [requirement], f"The server delivers {what} octet for octet.", run)


for _content in _CONTENTS:
    _define_content(*_content)


_INVALID: list[tuple[str, str, bytes]] = [
    ("lone-ff", "the octet FF", b"hi\xff"),
    ("overlong", "an overlong form", b"\xc0\xaf"),
    ("surrogate", "an encoded surrogate", b"\xed\xa0\x80"),
    ("too-great", "a character above U+10FFFF", b"\xf4\x90\x80\x80"),
    ("cut", "a character that is cut off", "世".encode()[:2]),
    ("continuation", "a continuation octet alone", b"\x80"),
]


def _define_invalid(path: str, what: str, payload: bytes) -> None:
    async def run(t: Context) -> None:
        await expect_refusal(
            t,
            "RW-PUBLISH-2",
            lambda p: publish(p, payload, ctype=1),
            lambda p: publish(p, payload, ctype=0),
            Code.PAYLOAD_INVALID,
        )

    summary = f"The server sends PAYLOAD_INVALID for a text with {what}, and accepts the same as octets."
    SERVER.add(f"7.15/invalid-{path}", ["RW-PUBLISH-2"], summary, run)


for _invalid in _INVALID:
    _define_invalid(*_invalid)


@case("7.15/largest", "RW-PUBLISH-1", "RW-FRAME-3", tags=["slow"])
async def largest(t: Context) -> None:
    """The server accepts a payload of max_body - 256 octets, and answers a longer one with PAYLOAD_TOO_LARGE."""
    client, joined = await t.member(fresh=False)
    most = client.welcome.max_body - CONTENT_RESERVE
    id = t.id(client)
    reply = await t.patiently(client, Publish(id, 1, bytes(most), room=joined.room))
    t.require(isinstance(reply, Ack), f"ACK for {most} octets", reply)
    message = (await client.until(joined.room, id))[-1]
    t.require(len(message.payload) == most, f"{most} octets", len(message.payload), "RW-PUBLISH-4")
    request = client.ask(Publish(t.id(client), 1, bytes(most + 1), room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_TOO_LARGE, room=joined.room)
    await t.publish(client, joined.room)


@case("7.15/largest-with-fields", "RW-PUBLISH-1")
async def largest_with_fields(t: Context) -> None:
    """The server counts relayed fields with 4 octets more each, and other fields not at all."""
    client, joined = await t.member(fresh=False)
    most = client.welcome.max_body - CONTENT_RESERVE
    relayed = (Field(0xC000, bytes(100)), Field(0xC001, b""))
    payload = bytes(most - 108)
    fits = (*relayed, Field(IGNORABLE, bytes(20)))
    reply = await t.patiently(client, Publish(t.id(client), 1, payload, fields=fits, room=joined.room))
    t.require(isinstance(reply, Ack), "ACK, since fields that are not relayed do not count", reply)
    for fields in ((*relayed, Field(0xC002, b"")), (Field(0xC000, bytes(105)),)):
        request = client.ask(Publish(t.id(client), 1, payload, fields=fields, room=joined.room))
        await client.expect_error(request, Code.PAYLOAD_TOO_LARGE, room=joined.room)


@case("7.15/too-large-before-invalid", "RW-CHECK-1", "RW-PUBLISH-1")
async def too_large_before_invalid(t: Context) -> None:
    """The server answers PUBLISH with PAYLOAD_TOO_LARGE rather than PAYLOAD_INVALID, and NOT_JOINED first."""
    client, joined = await t.member(fresh=False)
    payload = b"\xff" * (client.welcome.max_body - CONTENT_RESERVE + 1)
    request = client.ask(Publish(t.id(client), 0, payload, room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_TOO_LARGE)
    request = client.ask(Publish(t.id(client), 0, payload, room=joined.room + 9), breaks="RW-MODEL-8")
    await client.expect_error(request, Code.NOT_JOINED)


@case("7.15/refused-appends-nothing", "RW-PROMISE-4", "RW-MODEL-1")
async def refused_appends_nothing(t: Context) -> None:
    """The server leaves no hole and no message for publishes that it refused."""
    client, joined = await t.member(fresh=False)
    before = await t.publish(client, joined.room)
    refused = []
    for payload, code in (
        (b"\xff", Code.PAYLOAD_INVALID),
        (bytes(client.welcome.max_body - 200), Code.PAYLOAD_TOO_LARGE),
    ):
        refused.append(t.id(client))
        request = client.ask(Publish(refused[-1], 0, payload, room=joined.room))
        await client.expect_error(request, code)
    [seen] = await t.marker(client, room=joined.room)
    t.require(seen[-1].seq == before.seq + 1, f"seq {before.seq + 1} for the next", seen[-1].seq)
    t.require(not any(m.id in refused for m in seen), "no refused message", seen)


@case("7.15/refused-id-is-free", "RW-PROMISE-4", "RW-DEDUPE-1")
async def refused_id_is_free(t: Context) -> None:
    """The server takes the id of a refused publish as a new one."""
    client, joined = await t.member(fresh=False)
    id = t.id(client)
    request = client.ask(Publish(id, 0, b"\xff", room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_INVALID)
    ack = await t.publish(client, joined.room, b"well", id=id)
    t.require(not ack.flags & 0x10, "DUPLICATE clear", hex(ack.flags))


@case("7.16/time", "RW-ACK-1", "RW-ACK-2")
async def time(t: Context) -> None:
    """The server gives messages times that do not decrease, and the same times in their ACKs."""
    client, joined = await t.member(fresh=False)
    acks = [await t.publish(client, joined.room) for _ in range(8)]
    [seen] = await t.marker(client, room=joined.room)
    times = [message.time_ms for message in seen]
    t.require(times == sorted(times), "times that do not decrease", times)
    found, wanted = times[: len(acks)], [ack.time_ms for ack in acks]
    t.require(found == wanted, f"the times of the ACKs, {wanted}", found, "RW-ACK-2")


@case("7.17/all-members", "RW-MODEL-2", "RW-MESSAGE-1", "RW-MODEL-1")
async def all_members(t: Context) -> None:
    """The server sends publishes of three members to all of them in one order, with the same content."""
    clients = [await t.member(name) for name in [await t.any_room()] * 3]
    ref = clients[0][1].room
    requests = []
    for number in range(5):
        for at, (client, _) in enumerate(clients):
            frame = Publish(t.id(client), 0, b"%d-%d" % (at, number), room=ref)
            requests.append((client, client.ask(frame)))
            t.observe(client.welcome.window >= 5, "the window is too small")
    for client, request in requests:
        reply = await client.reply(request)
        limited = isinstance(reply, Error) and reply.code == Code.RATE_LIMITED
        t.require(isinstance(reply, Ack) or limited, "ACK", reply)
    streams = await t.marker(clients[0][0], *(client for client, _ in clients), room=ref)
    streams = [list(map(content, stream)) for stream in streams]
    common = {message.seq: message for message in streams[0]}
    for stream in streams:
        numbers = [message.seq for message in stream]
        t.require(numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no hole", numbers, "RW-MODEL-1")
        different = [m for m in stream if common.setdefault(m.seq, m) != m]
        t.require(not different, "the same content for every member", different, "RW-MODEL-2")


@case("7.17/order-of-one-connection", "RW-PROMISE-8", "RW-PROMISE-11")
async def order_of_one(t: Context) -> None:
    """The server numbers publishes in one segment in their order, and sends each ACK before its MESSAGE."""
    client, joined = await t.member(fresh=False)
    count = min(client.welcome.window, 20)
    ids = [t.id(client) for _ in range(count)]
    frames = [Publish(id, 0, b"x", request=300 + n, room=joined.room) for n, id in enumerate(ids)]
    client.send_octets(b"".join(map(encode, frames)))
    replies = [await client.reply(300 + n) for n in range(count)]
    numbers = [reply.seq for reply in replies if isinstance(reply, Ack)]
    t.require(bool(numbers) and numbers == sorted(set(numbers)), "increasing seq", numbers)
    await t.marker(client, room=joined.room)
    order = [item.frame for item in client.received if isinstance(item.frame, (Ack, Message))]
    for number in numbers:
        first = next(frame for frame in order if frame.seq == number)
        t.require(isinstance(first, Ack), f"ACK of seq {number} first", first, "RW-PROMISE-11")


@case("7.17/bystander", "RW-MODEL-2")
async def bystander(t: Context) -> None:
    """The server does not send messages of a room to a connection that is not in it."""
    stranger, _ = await t.member(fresh=False)
    client, joined = await t.member(fresh=False)
    await t.marker(client, room=joined.room)
    await stranger.fence()
    t.require(not stranger.left_over(Message), "no MESSAGE", stranger.left_over(Message))
