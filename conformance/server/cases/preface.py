"""Section 5.1: the preface."""

from conformance.harness.verdicts import Failed
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import CLIENT_PREFACE
from protocol.registry import MAGIC


async def _version(t: Context, low: int, high: int) -> int:
    """The version that the server chooses; also that the rest of its preface is as sent."""
    client = await t.dial()
    client.send_preface(MAGIC + bytes([low, high, 0, 0]))
    preface = await client.expect_preface()
    t.require(preface[5:] == bytes(3), "zero1 and zero2 sent as 0", preface.hex(), "RW-PREFACE-2")
    if preface[4] == 0:
        await client.expect_closed("RW-PREFACE-4")
        t.require(client.octets == 8, "nothing after version 0", f"{client.octets - 8} octets", "RW-PREFACE-4")
    return preface[4]


async def _refused(t: Context, octets: bytes, requirement: str = "RW-PREFACE-5") -> None:
    control = await t.open()
    await control.fence()
    client = await t.dial()
    client.send_preface(octets, breaks="RW-PREFACE-1")
    await client.expect_silent_close(requirement)
    await t.alive()


@case("5.1/answered", "RW-PREFACE-2", "RW-PREFACE-3")
async def answered(t: Context) -> None:
    """The server answers a client's preface with its own, version 1."""
    version = await _version(t, 1, 1)
    t.require(version == 1, "version 1", version, "RW-PREFACE-3")


@case("5.1/zero-ignored", "RW-PREFACE-7")
async def zero_ignored(t: Context) -> None:
    """Any value of the field zero is ignored."""
    await t.open()
    client = await t.dial()
    client.send_preface(MAGIC + bytes.fromhex("0101 BEEF"))
    await client.expect_preface("RW-PREFACE-7")
    await client.hello(t.name())


@case("5.1/highest-version", "RW-PREFACE-3")
async def highest_version(t: Context) -> None:
    """Of the range 1 to 255 the server takes one that it speaks; of 0 to 1 it takes 1."""
    version = await _version(t, 1, 255)
    t.require(version >= 1, "a version from 1 to 255", version)
    version = await _version(t, 0, 1)
    t.require(version == 1, "version 1", version)


@case("5.1/none-in-common", "RW-PREFACE-4")
async def none_in_common(t: Context) -> None:
    """Version 255 alone, which does not exist, is answered with version 0 and the end."""
    await t.open()
    version = await _version(t, 255, 255)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/version-zero", "RW-PREFACE-4")
async def version_zero(t: Context) -> None:
    """Version 0 is no version: a client with nothing else is answered with 0 and the end."""
    await t.open()
    version = await _version(t, 0, 0)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/min-above-max", "RW-PREFACE-4")
async def min_above_max(t: Context) -> None:
    """A version_min above version_max is answered with version 0 and the end."""
    await t.open()
    version = await _version(t, 2, 1)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/wrong-magic", "RW-PREFACE-5")
async def wrong_magic(t: Context) -> None:
    """A preface with a wrong fourth octet of the magic is not answered at all."""
    await _refused(t, bytes.fromhex("F5525751 0101 0000"))


@case("5.1/wrong-first-octet", "RW-PREFACE-5")
async def wrong_first_octet(t: Context) -> None:
    """One wrong octet is enough: the server does not wait for more."""
    await _refused(t, b"\x00")


@case("5.1/wrong-third-octet", "RW-PREFACE-5")
async def wrong_third_octet(t: Context) -> None:
    """Two right octets and a wrong one are enough."""
    await _refused(t, bytes.fromhex("F55200"))


@case("5.1/http", "RW-PREFACE-5")
async def http(t: Context) -> None:
    """A client of HTTP is closed without a word."""
    await _refused(t, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


@case("5.1/tls", "RW-PREFACE-5")
async def tls(t: Context) -> None:
    """A TLS record to a port in clear text is closed without a word."""
    await _refused(t, bytes.fromhex("16030100C8010000C40303") + bytes(64))


async def _half(t: Context) -> RawClient:
    client = await t.dial()
    client.send_preface(CLIENT_PREFACE[:7])
    await t.alive()  # a whole handshake goes by
    return client


@case("5.1/not-before", "RW-PREFACE-2")
async def not_before(t: Context) -> None:
    """Seven octets of a preface are not answered; the eighth makes the answer come."""
    client = await _half(t)
    t.require(not client.octets and not client.ended, "nothing yet", client.last_words() + f", {client.octets} octets")
    client.send_preface(CLIENT_PREFACE[7:])
    await client.expect_preface()
    await client.hello(t.name())


@case("5.1/single-octets", "RW-CONN-2", "RW-FRAME-4")
async def single_octets(t: Context) -> None:
    """A preface in single octets is a preface."""
    await t.open()
    client = await t.dial()
    for octet in CLIENT_PREFACE:
        client.send_preface(bytes([octet]))
        await client.flush()
    await client.expect_preface("RW-CONN-2")
    await client.hello(t.name())


async def _times_out(t: Context, sent: bytes) -> None:
    await t.open()
    client = await t.dial()
    if sent:
        client.send_preface(sent, breaks="RW-PREFACE-1")
    await client.expect_silent_close("RW-PREFACE-6", t.time_out("preface_ms"))
    await t.alive()


@case("5.1/time-out-silent", "RW-PREFACE-6", tags=["waits"])
async def time_out_silent(t: Context) -> None:
    """A connection without a preface is closed without a word."""
    await _times_out(t, b"")


@case("5.1/time-out-half", "RW-PREFACE-6", tags=["waits"])
async def time_out_half(t: Context) -> None:
    """A connection with half a preface is closed without a word."""
    await _times_out(t, CLIENT_PREFACE[:5])


@case("5.1/others-unharmed", "RW-CLOSE-7", "RW-PREFACE-5")
async def others_unharmed(t: Context) -> None:
    """Connections that send rubbish do nothing to one that is open."""
    bystander = await t.open()
    for octets in (b"\xff" * 64, b"\xf5R\x00", b"\x00" * 1024):
        client = await t.dial()
        client.send_preface(octets, breaks="RW-PREFACE-1")
        await client.expect_silent_close("RW-PREFACE-5")
    try:
        await bystander.fence()
    except Failed as failure:
        raise Failed("the other connection to go on", failure.got, "RW-CLOSE-7") from None
