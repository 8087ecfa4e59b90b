"""Section 5.1: the preface."""

from conformance.harness.verdicts import Failed
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import CLIENT_PREFACE
from protocol.registry import MAGIC


async def _version(t: Context, low: int, high: int) -> int:
    """The version that the server chooses; the rest of its preface must be 0."""
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
    """The server answers a client's preface with its own, of version 1."""
    version = await _version(t, 1, 1)
    t.require(version == 1, "version 1", version, "RW-PREFACE-3")


@case("5.1/zero-ignored", "RW-PREFACE-7")
async def zero_ignored(t: Context) -> None:
    """The server ignores the value of the field zero."""
    await t.open()
    client = await t.dial()
    client.send_preface(MAGIC + bytes.fromhex("0101 BEEF"))
    await client.expect_preface("RW-PREFACE-7")
    await client.hello(t.name())


@case("5.1/highest-version", "RW-PREFACE-3")
async def highest_version(t: Context) -> None:
    """The server chooses a version that it speaks from the range 1 to 255, and 1 from 0 to 1."""
    version = await _version(t, 1, 255)
    t.require(version >= 1, "a version from 1 to 255", version)
    version = await _version(t, 0, 1)
    t.require(version == 1, "version 1", version)


@case("5.1/none-in-common", "RW-PREFACE-4")
async def none_in_common(t: Context) -> None:
    """The server answers version 255 alone, which does not exist, with version 0, and closes the connection."""
    await t.open()
    version = await _version(t, 255, 255)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/version-zero", "RW-PREFACE-4")
async def version_zero(t: Context) -> None:
    """The server answers version 0 alone, which is no version, with version 0, and closes the connection."""
    await t.open()
    version = await _version(t, 0, 0)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/min-above-max", "RW-PREFACE-4")
async def min_above_max(t: Context) -> None:
    """The server answers a version_min above version_max with version 0, and closes the connection."""
    await t.open()
    version = await _version(t, 2, 1)
    t.require(version == 0, "version 0", version)
    await t.alive()


@case("5.1/wrong-magic", "RW-PREFACE-5")
async def wrong_magic(t: Context) -> None:
    """The server does not answer a preface whose magic has a wrong fourth octet."""
    await _refused(t, bytes.fromhex("F5525751 0101 0000"))


@case("5.1/wrong-first-octet", "RW-PREFACE-5")
async def wrong_first_octet(t: Context) -> None:
    """The server closes the connection after one wrong octet, and does not wait for more."""
    await _refused(t, b"\x00")


@case("5.1/wrong-third-octet", "RW-PREFACE-5")
async def wrong_third_octet(t: Context) -> None:
    """The server closes the connection after two right octets and a wrong one."""
    await _refused(t, bytes.fromhex("F55200"))


@case("5.1/http", "RW-PREFACE-5")
async def http(t: Context) -> None:
    """The server closes the connection of an HTTP client, and sends nothing."""
    await _refused(t, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


@case("5.1/tls", "RW-PREFACE-5")
async def tls(t: Context) -> None:
    """The server closes a connection that begins with a TLS record at a port in clear text, and sends nothing."""
    await _refused(t, bytes.fromhex("16030100C8010000C40303") + bytes(64))


async def _half(t: Context) -> RawClient:
    client = await t.dial()
    client.send_preface(CLIENT_PREFACE[:7])
    await t.alive()  # a whole handshake goes by
    return client


@case("5.1/not-before", "RW-PREFACE-2")
async def not_before(t: Context) -> None:
    """The server does not answer seven octets of a preface, and answers the eighth."""
    client = await _half(t)
    t.require(not client.octets and not client.ended, "nothing yet", client.last_words() + f", {client.octets} octets")
    client.send_preface(CLIENT_PREFACE[7:])
    await client.expect_preface()
    await client.hello(t.name())


@case("5.1/single-octets", "RW-CONN-2", "RW-FRAME-4")
async def single_octets(t: Context) -> None:
    """The server takes a preface in single octets."""
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
    """The server closes a silent connection after the preface time-out, and sends nothing."""
    await _times_out(t, b"")


@case("5.1/time-out-half", "RW-PREFACE-6", tags=["waits"])
async def time_out_half(t: Context) -> None:
    """The server closes a connection with half a preface after the preface time-out, and sends nothing."""
    await _times_out(t, CLIENT_PREFACE[:5])


@case("5.1/others-unharmed", "RW-CLOSE-7", "RW-PREFACE-5")
async def others_unharmed(t: Context) -> None:
    """The server serves an open connection as before while others send rubbish."""
    bystander = await t.open()
    for octets in (b"\xff" * 64, b"\xf5R\x00", b"\x00" * 1024):
        client = await t.dial()
        client.send_preface(octets, breaks="RW-PREFACE-1")
        await client.expect_silent_close("RW-PREFACE-5")
    try:
        await bystander.fence()
    except Failed as failure:
        raise Failed("the open connection to be served", failure.got, "RW-CLOSE-7") from None
