"""What may become of a client's connection before it is open."""

from collections.abc import Callable

from conformance.client.raw_server import RawServer
from conformance.fuzz.client.player import AT_HELLO, HANDSHAKES, RETRY_MS, ClientPlayer, Handshake
from conformance.fuzz.failure import fail
from conformance.wire.octets import encode
from conformance.wire.text import frame_line
from protocol.frames import Auth, Error, Goaway, Hello, Presence, Unknown, Welcome
from protocol.registry import GREASE, Code, Flag

_PREFACES = {
    "magic": (b"\xf5RX", "RW-PREFACE-5"),  # one octet differs, which is enough
    "version-0": (bytes.fromhex("F552575000000000"), "RW-PREFACE-4"),
    "version-9": (bytes.fromhex("F552575009000000"), "RW-PREFACE-3"),
    "close": (b"", ""),
}
_SHORT_WELCOME = bytes.fromhex("00000001 0002 0000 00000001 00000000 00")
_LAST = (Code.NAME_INVALID, Code.TLS_REQUIRED, Code.AUTH_FAILED)
"""Codes of ERROR to HELLO after which a client must not come back by itself."""


def _handshake(*names: str) -> Callable[[Handshake], Handshake]:
    def register(handshake: Handshake) -> Handshake:
        HANDSHAKES.update(dict.fromkeys(names, handshake))
        return handshake

    return register


# --- connections that are never open


@_handshake(*_PREFACES)
async def preface(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The server sends a preface that a client must not accept, or none."""
    octets, rule = _PREFACES[how]
    if octets:
        player.stats.broken[rule] += how != "version-0"
        server.send_preface(octets, breaks=rule)
        await server.expect_end("RW-PREFACE-5" if how == "magic" else "RW-PREFACE-8")
        player.visit("PREFACE", "wrong preface")
    else:
        player.visit("any", "end of stream")
    if server.received:
        fail("RW-PREFACE-8", "nothing more from the client", frame_line(server.received[0].frame))
    await player.lost(server, final=how == "version-0")


async def _hello(player: ClientPlayer, server: RawServer) -> Hello:
    server.send_preface()
    hello = await server.expect(Hello, "RW-HELLO-1")
    player.visit("PREFACE", "preface")
    return hello


@_handshake("error-retry", "error-last")
async def error(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The server refuses HELLO, for now or for good."""
    hello = await _hello(player, server)
    last = player.random.choice(_LAST)
    code = Code.SERVER_FULL if how == "error-retry" else last
    flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
    player.stats.codes["E", code] += 1
    server.send(Error(code, retry, "no", flags=flags, request=hello.request))
    player.say_goaway(server, code)
    await server.expect_end("RW-CLOSE-4")
    player.visit("HELLO_SENT", "ERROR")
    await player.lost(server, retry_ms=RETRY_MS if code.retry else 0, final=not code.retry)


@_handshake("goaway-retry")
async def goaway(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The server ends the connection before WELCOME."""
    await _hello(player, server)
    player.say_goaway(server, Code.SHUTDOWN)
    await player.expect_goaway_none(server)
    player.visit("HELLO_SENT", "GOAWAY")
    await player.lost(server, retry_ms=RETRY_MS, orderly=True)


@_handshake("half")
async def half(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The connection ends in the middle of WELCOME."""
    hello = await _hello(player, server)
    welcome = Welcome(1, "ada", 1, 65536, 30_000, 0, 32, 9, b"", request=hello.request)
    server.write(encode(welcome)[:30])
    player.visit("any", "end of stream")
    await player.lost(server)


@_handshake("early", "malformed")
async def broken(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The server sends something else than WELCOME, or one that ends too early."""
    await _hello(player, server)
    rule = "RW-CHECK-3" if how == "early" else "RW-FRAME-7"
    octets = encode(Presence(1, 5, "x", room=9)) if how == "early" else _SHORT_WELCOME
    codes = (Code.UNEXPECTED,) if how == "early" else (Code.MALFORMED, Code.UNEXPECTED)
    server.send_octets(octets, breaks=rule)
    player.stats.broken[rule] += 1
    await server.expect_goaway(*codes, requirement=rule)
    player.visit("HELLO_SENT", "fatal error")
    await player.lost(server)


@_handshake("quit-preface", "quit-hello")
async def quit_early(player: ClientPlayer, server: RawServer, how: str) -> None:
    """The application ends the connection before it is open."""
    if how == "quit-hello":
        server.send_preface()
        await server.expect(Hello, "RW-HELLO-1")
    player.over = True
    player.client.tell("quit")
    if how == "quit-hello":
        said = await server.wait(lambda: server.find(Goaway), "GOAWAY(NONE)", "RW-CLOSE-2")
        if said.code != Code.NONE:
            fail("RW-CLOSE-2", "GOAWAY(NONE)", frame_line(said))
        server.send(Goaway(Code.NONE))
    await server.expect_end("RW-CLOSE-5")
    player.visit("HELLO_SENT" if how == "quit-hello" else "PREFACE", "close")
    await server.close()


# --- between HELLO and WELCOME


async def _grease(player: ClientPlayer, server: RawServer, hello: Hello) -> None:
    """The client has to bear frames that it may ignore."""
    server.send(Unknown(player.random.choice(GREASE), b"grease"), Unknown(0xFFFF, b""))


async def _auth(player: ClientPlayer, server: RawServer, hello: Hello) -> None:
    """The client may answer a challenge that makes no sense, or end the connection for it."""
    server.send(Auth(b"what?", request=hello.request))
    player.visit("HELLO_SENT", "AUTH")
    said = await server.wait(
        lambda: server.find(Goaway) or server.find(Auth), "AUTH, or GOAWAY(AUTH_FAILED)", "RW-AUTH-1"
    )
    if isinstance(said, Goaway):
        if said.code != Code.AUTH_FAILED:
            fail("RW-AUTH-1", "GOAWAY(AUTH_FAILED)", frame_line(said))
        player.stats.codes["G", said.code] += 1
        await player.lost(server, final=True)


AT_HELLO |= {"grease": _grease, "auth": _auth}
