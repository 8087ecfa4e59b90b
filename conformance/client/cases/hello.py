"""Sections 7.1, 7.2, 7.3, 8.1 and 8.3: the handshake."""

from dataclasses import replace

from conformance.client.cases.steps import add, case
from conformance.client.context import Context
from conformance.client.raw_server import RawServer
from conformance.wire.octets import encode, frame
from protocol.fields import agent, extension, server_identity
from protocol.frames import Auth, Goaway, Hello, Join, Message, Ok, Ping, Pong
from protocol.registry import Code, FrameType


@case("7.1/hello", "RW-HELLO-1", "RW-REQUEST-1", "RW-SASL-3")
async def hello(t: Context) -> None:
    """The client sends HELLO first and once, with its name, and ANONYMOUS if it has no credentials."""
    server, hello = await t.greeted("Ada Lovelace")
    t.require(hello.name == "Ada Lovelace", 'the name "Ada Lovelace"', hello.name)
    t.require(hello.mechanism == "ANONYMOUS", "ANONYMOUS", hello.mechanism, "RW-SASL-3")
    t.require(hello.request != 0, "a request number", hello.request, "RW-REQUEST-1")
    server.send(t.welcome(hello))
    await t.report("connected")
    await server.fence()
    t.require(not server.left_over(Hello), "one HELLO", server.left_over(Hello))


@case("8.3/waits-for-welcome", "RW-CONN-1")
async def waits_for_welcome(t: Context) -> None:
    """The client sends no request that the application wants before WELCOME."""
    server, hello = await t.greeted()
    t.client.tell("join", room="lobby")
    await t.alive()
    others = [item.frame for item in server.received if not isinstance(item.frame, Hello)]
    t.require(not others, "nothing before WELCOME", others)
    server.send(t.welcome(hello))
    await t.report("connected")
    await server.fence()
    joins = server.left_over(Join)
    t.require(len(joins) <= 1, "at most one JOIN", joins)


@case("7.2/name-granted", "RW-WELCOME-6")
async def name_granted(t: Context) -> None:
    """The client reports the name in WELCOME as its own, whatever it asked for."""
    server, hello = await t.greeted("ada")
    server.send(t.welcome(hello, name="~Ada the 2nd"))
    report = await t.report("connected")
    t.require(report.get("name") == "~Ada the 2nd", '"~Ada the 2nd" in the report', report)


@case("7.2/fields", "RW-FIELD-1", "RW-EXT-3")
async def fields_of_welcome(t: Context) -> None:
    """The client understands WELCOME with SERVER, AGENT and the data of an extension in use."""
    server, hello = await t.greeted()
    welcome = t.welcome(hello)
    more = (agent("other-server/9"), server_identity(2**64 - 1, "chat.example:7117"))
    server.send(replace(welcome, fields=(*welcome.fields, *more)))
    await t.report("connected", requirement="RW-FIELD-1")


@case("7.2/unknown-extension", "RW-EXT-3", "RW-GREASE-2")
async def unknown_extension(t: Context) -> None:
    """The client ignores extensions in WELCOME whose names it does not know."""
    server, hello = await t.waiting()
    welcome = t.welcome(hello)
    more = (extension("grease-a1b2"), extension("com.example.tables", b"\x00\xff"))
    server.send(replace(welcome, fields=(*more, *welcome.fields)), breaks="RW-WELCOME-2")
    await t.report("connected", requirement="RW-EXT-3")
    await server.fence("RW-EXT-3")


@case("7.2/limits-at-their-ends", "RW-WELCOME-7", "RW-REQUEST-5")
async def limits_at_their_ends(t: Context) -> None:
    """The client keeps limits at either end of their ranges like others."""
    server = await t.open(max_body=4096, heartbeat_ms=1000, dedupe_ms=0, window=1, max_rooms=1)
    await server.fence("RW-WELCOME-7")
    room = t.room()
    await t.join(server, room)
    await t.published(server, room)


@case("7.2/limits-out-of-range", "RW-WELCOME-7")
async def limits_out_of_range(t: Context) -> None:
    """The client sends GOAWAY(MALFORMED) for a WELCOME with a window of 0, or takes that as it is."""
    server, hello = await t.waiting()
    server.send(t.welcome(hello, window=0), breaks="RW-WELCOME-4")
    end = await server.wait(
        lambda: server.find(Goaway) or (t.client.of("connected") or None), "GOAWAY(MALFORMED), or a connection"
    )
    t.require(not isinstance(end, Goaway) or end.code == Code.MALFORMED, "MALFORMED", end)


@case("7.3/auth", "RW-AUTH-1")
async def auth_is_answered(t: Context) -> None:
    """The client answers AUTH with AUTH for the same request, or ends the connection; it does not go on."""
    server, hello = await t.waiting()
    server.send(Auth(b"more?", request=hello.request))
    answer = await server.wait(
        lambda: server.find(Auth) or server.find(Goaway), "AUTH, or the end of the connection", "RW-AUTH-1"
    )
    if isinstance(answer, Auth):
        t.require(answer.request == hello.request, f"request {hello.request}", answer.request)
    others = [item.frame for item in server.received if not isinstance(item.frame, Hello | Auth | Goaway)]
    t.require(not others, "nothing else", others, "RW-CONN-1")


async def _unexpected(t: Context, server: RawServer, octets: bytes) -> None:
    server.send_octets(octets, breaks="RW-CHECK-3")
    await server.expect_goaway(Code.UNEXPECTED, requirement="RW-CHECK-3")
    await server.close()
    await t.report("disconnected", requirement="RW-CHECK-3")
    await t.alive()


_BEFORE_WELCOME = {
    "ping": encode(Ping(bytes(8))),
    "pong": encode(Pong(bytes(8))),
    "message": encode(Message(1, 1, 1, bytes(16), 0, "bob", b"x", room=5)),
    "ok": encode(Ok(request=1)),
    "second-request": frame(FrameType.ERROR, bytes.fromhex("01F6 00000064 0000"), request=0x7777, flags=1),
}

for _name, _octets in _BEFORE_WELCOME.items():

    async def _before(t: Context, octets: bytes = _octets) -> None:
        server, _ = await t.waiting()
        await _unexpected(t, server, octets)

    add(
        f"8.1/before-welcome-{_name}",
        ["RW-CHECK-3"],
        f"The client sends GOAWAY(UNEXPECTED) for a frame before WELCOME ({_name}).",
        _before,
    )


@case("8.1/welcome-twice", "RW-CHECK-3")
async def welcome_twice(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a second WELCOME."""
    server = await t.open()
    await server.fence()
    await _unexpected(t, server, encode(server.welcome))


@case("8.1/auth-after-welcome", "RW-CHECK-3")
async def auth_after_welcome(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for AUTH after WELCOME."""
    server = await t.open()
    await server.fence()
    await _unexpected(t, server, encode(Auth(b"x", request=server.welcome.request)))
