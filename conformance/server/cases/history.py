"""Section 7.18: reading history, with HISTORY and HISTORY_END."""

from dataclasses import replace

from conformance.harness.verdicts import Failed
from conformance.server.cases.steps import SERVER, case, content
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.text import frame_line
from protocol.frames import History, HistoryEnd, Joined, Message
from protocol.registry import MAX_SAFE, Code, Flag

_COUNT = 7


async def _room(t: Context) -> tuple[RawClient, Joined]:
    """A client that has negotiated history, in a room with a few messages."""
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history")
    for number in range(_COUNT):
        await t.publish(client, joined.room, b"%d" % number)
    await t.marker(client, room=joined.room)
    return client, joined


async def read(
    t: Context, client: RawClient, room: int, start: int, end: int, limit: int, flags: int = 0
) -> tuple[list[Message], HistoryEnd]:
    """The reply to HISTORY, held against the formula of section 7.18."""
    reply = await t.patiently(client, History(start, end, limit, flags=flags, room=room))
    if not isinstance(reply, HistoryEnd):
        raise Failed("HISTORY_END", frame_line(reply))
    request = reply.request
    messages = []
    while message := client.find(Message, lambda m: m.request == request):
        messages.append(message)
    head = max((item.frame.seq for item in client.received if isinstance(item.frame, Message)), default=0)
    low = min(max(start, reply.oldest), head + 1)
    high = max(low, min(end or head + 1, head + 1))
    numbers = [message.seq for message in messages]
    t.require(
        numbers == list(range(reply.start, reply.end)),
        f"[{reply.start}, {reply.end})",
        numbers,
        "RW-HISTORY-6",
    )
    t.require(low <= reply.start <= reply.end <= high, f"a part of [{low}, {high})", reply, "RW-HISTORY-6")
    t.require(bool(numbers) or low == high, "at least one message", reply, "RW-HISTORY-2")
    t.require(not limit or len(numbers) <= limit, f"at most {limit}", numbers, "RW-HISTORY-6")
    whole = (reply.start, reply.end) == (low, high)
    t.require(bool(reply.flags & Flag.MORE) != whole, f"MORE {not whole:d}", reply, "RW-HISTORY-5")
    if numbers and flags & Flag.NEWEST:
        t.require(reply.end == high, f"the newest, up to {high - 1}", reply, "RW-HISTORY-6")
    elif numbers:
        t.require(reply.start == low, f"the oldest, from {low}", reply, "RW-HISTORY-6")
    elif not whole or reply.start != reply.end:
        t.require(reply.start == reply.end == low, f"an empty range at {low}", reply, "RW-HISTORY-6")
    return messages, reply


_HEAD = _COUNT + 1

_RANGES: list[tuple[str, str, int, int, int, int]] = [
    ("all", "everything", 0, 0, 0, 0),
    ("from-one", "everything from 1", 1, 0, 0, 0),
    ("middle", "a range in the middle", 3, 6, 0, 0),
    ("one", "one message", 4, 5, 0, 0),
    ("limited", "the oldest three", 1, 0, 3, 0),
    ("limit-exact", "as many as there are", 1, 0, _HEAD, 0),
    ("newest", "the newest three", 1, 0, 3, Flag.NEWEST),
    ("newest-of-range", "the newest two of a range", 2, 6, 2, Flag.NEWEST),
    ("newest-all", "the newest, without a limit", 0, 0, 0, Flag.NEWEST),
    ("empty", "an empty range", 3, 3, 0, 0),
    ("end-beyond", "an end beyond the head", 5, 1000, 0, 0),
    ("start-beyond", "a start beyond the head", 500, 0, 0, 0),
    ("both-beyond", "2^53 - 1 to 2^53 - 1", MAX_SAFE, MAX_SAFE, 65535, Flag.NEWEST),
]


def _define(path: str, what: str, start: int, end: int, limit: int, flags: int) -> None:
    async def run(t: Context) -> None:
        client, joined = await _room(t)
        await read(t, client, joined.room, start, end, limit, flags)

    requirements = ["RW-HISTORY-6", "RW-HISTORY-5", "RW-HISTORY-1", "RW-HISTORY-2"]
    SERVER.add(
        f"7.18/{path}",
        requirements,
        f"The server sends the range that section 7.18 gives for HISTORY of {what}.",
        run,
    )


for _row in _RANGES:
    _define(*_row)


@case("7.18/same-messages", "RW-MODEL-2", "RW-HISTORY-1")
async def same_messages(t: Context) -> None:
    """The server sends the same messages for HISTORY as it sent in the stream."""
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history")
    stream: list[Message] = []
    for _ in range(4):
        [seen] = await t.marker(client, room=joined.room)
        stream += seen
    messages, reply = await read(t, client, joined.room, 1, 0, 0)
    plain = [replace(content(message), request=0, flags=0) for message in messages]
    wanted = [replace(content(message), flags=0) for message in stream]
    t.require(plain == wanted[reply.start - 1 : reply.end - 1], "the messages of the stream", plain)


@case("7.18/pages", "RW-HISTORY-5", "RW-HISTORY-2")
async def pages(t: Context) -> None:
    """The server sends every message once to a client that follows MORE page by page, forwards and backwards."""
    client, joined = await _room(t)
    at, numbers = 1, []
    for _ in range(2 * _HEAD):
        messages, reply = await read(t, client, joined.room, at, 0, 3)
        numbers += [message.seq for message in messages]
        at = reply.end
        if not reply.flags & Flag.MORE:
            break
    t.require(numbers == list(range(reply.oldest, _HEAD + 1)), f"{reply.oldest} to {_HEAD} once each", numbers)
    at, numbers = _HEAD + 1, []
    for _ in range(2 * _HEAD):
        messages, reply = await read(t, client, joined.room, 1, at, 3, Flag.NEWEST)
        numbers = [message.seq for message in messages] + numbers
        at = reply.start
        if not reply.flags & Flag.MORE:
            break
    t.require(numbers == list(range(reply.oldest, _HEAD + 1)), f"{reply.oldest} to {_HEAD} once each", numbers)


@case("7.18/end-before-start", "RW-HISTORY-4")
async def end_before_start(t: Context) -> None:
    """The server answers an end that is not 0 and below start with RANGE_INVALID; one equal to start is valid."""
    client, joined = await _room(t)
    await read(t, client, joined.room, 4, 4, 0)
    for start, end in ((4, 3), (2, 1), (MAX_SAFE, 5)):
        request = client.ask(History(start, end, 0, room=joined.room))
        await client.expect_error(request, Code.RANGE_INVALID, room=joined.room)


@case("7.18/range-before-joined", "RW-CHECK-1", "RW-HISTORY-4")
async def range_before_joined(t: Context) -> None:
    """The server answers HISTORY with RANGE_INVALID rather than NOT_JOINED."""
    client, joined = await _room(t)
    for start, end, code in ((4, 3, Code.RANGE_INVALID), (4, 4, Code.NOT_JOINED)):
        request = client.ask(History(start, end, 0, room=joined.room + 50), breaks="RW-MODEL-8")
        await client.expect_error(request, code)


@case("7.18/empty-room", "RW-HISTORY-6")
async def empty_room(t: Context) -> None:
    """The server answers HISTORY of a room without messages with an empty range."""
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history")
    _, reply = await read(t, client, joined.room, 1, 0, 10)
    found = (reply.start, reply.end, reply.oldest, reply.flags & Flag.MORE)
    t.require(found == (1, 1, 1, 0), "start 1, end 1, oldest 1, MORE clear", found)


@case("7.18/stream-goes-on", "RW-CURSOR-2", "RW-REQUEST-4")
async def stream_goes_on(t: Context) -> None:
    """The server goes on with the stream where it was, whatever it sends for HISTORY."""
    client, joined = await _room(t)
    other, _ = await t.member(joined.name)
    for _ in range(3):
        await read(t, client, joined.room, 1, 0, 4)
        await t.marker(other, client, room=joined.room)


@case("7.18/caps", "RW-HISTORY-5", "RW-HISTORY-2", "RW-HISTORY-1", tags=["process"])
async def history_caps(t: Context) -> None:
    """The server lets a client that reads on from `end`, or back from `start`, see each message once."""
    await t.with_limits(history_messages=3, history_octets=1000)
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history")
    for number in range(10):
        await t.publish(client, joined.room, b"%d" % number * (400 if number % 2 else 1))
    await t.marker(client, room=joined.room)
    numbers: list[int] = []
    oldest = (await read(t, client, joined.room, 1, 0, 0))[1].oldest
    wanted = list(range(oldest, 12))
    start, end, more = 1, 12, True
    while more:
        messages, reply = await read(t, client, joined.room, start, 0, 0)
        numbers += [message.seq for message in messages]
        start, more = reply.end, bool(reply.flags & Flag.MORE)
    t.require(numbers == wanted, f"{oldest} to 11 once each", numbers)
    numbers, more = [], True
    while more:
        messages, reply = await read(t, client, joined.room, 1, end, 65535, Flag.NEWEST)
        numbers = [message.seq for message in messages] + numbers
        end, more = reply.start, bool(reply.flags & Flag.MORE)
    t.require(numbers == wanted, f"{oldest} to 11 once each, from the newest back", numbers)
