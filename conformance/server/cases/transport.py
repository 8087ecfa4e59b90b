"""Section 14: TLS, where the target is reached over TLS (--tls)."""

import contextlib
import ssl

from conformance.harness.tls import ALPN, Trust
from conformance.harness.verdicts import Failed, Unsupported
from conformance.server.cases.steps import case
from conformance.server.context import Context
from protocol.frames import Hello, Welcome


def _trust(t: Context) -> Trust:
    """How the target is reached over TLS. Raises Unsupported if it is not."""
    if t.target.trust is None:
        raise Unsupported("the target is not reached over TLS (--tls)")
    return t.target.trust


@case("14/tls", "RW-TLS-1")
async def tls(t: Context) -> None:
    """The server speaks TLS 1.3, and agrees on the protocol roomwire/1."""
    _trust(t)
    client = await t.open()
    found = (client.tls and client.tls.version(), client.tls and client.tls.selected_alpn_protocol())
    t.require(found == ("TLSv1.3", ALPN), f"TLSv1.3 and {ALPN}", found, "RW-TLS-1")
    await client.fence()


@case("14/tls-older", "RW-TLS-1")
async def older(t: Context) -> None:
    """The server refuses a handshake that offers no more than TLS 1.2."""
    trust = _trust(t)
    await t.open()
    try:
        client = await t.dial_tls(trust.context(most=ssl.TLSVersion.TLSv1_2))
    except OSError:
        await t.alive()
        return
    raise Failed("no connection with TLS 1.2", str(client.tls and client.tls.version()), "RW-TLS-1")


async def _not_agreed(t: Context, *alpn: str) -> None:
    trust = _trust(t)
    await t.open()
    with contextlib.suppress(OSError):  # the server may already refuse in the handshake
        client = await t.dial_tls(trust.context(alpn=alpn))
        client.send_preface()
        await client.expect_silent_close("RW-TLS-4")
    await t.alive()


@case("14/tls-without-protocol", "RW-TLS-4")
async def without_protocol(t: Context) -> None:
    """The server refuses a handshake without ALPN, or closes that connection without an octet."""
    await _not_agreed(t)


@case("14/tls-other-protocol", "RW-TLS-4")
async def other_protocol(t: Context) -> None:
    """The server refuses a handshake for another protocol, or closes that connection without an octet."""
    await _not_agreed(t, "http/1.1", "roomwire/0")


@case("14/tls-clear-text", "RW-TLS-1")
async def clear_text(t: Context) -> None:
    """The server sends no preface in clear text at a port for TLS."""
    _trust(t)
    await t.open()
    client = await t.dial_clear()
    client.capture = bytearray()
    client.send_preface()
    await client.wait(lambda: client.ended or None, "the connection closed", "RW-TLS-1", t.time_out("handshake_ms"))
    got = bytes(client.capture)
    t.require(not got.startswith(b"\xf5RWP"), "no preface in clear text", got.hex(), "RW-TLS-1")
    await t.alive()


@case("14/tls-stalled", "RW-HELLO-4", tags=["waits"])
async def stalled(t: Context) -> None:
    """The server ends a handshake that stalls, before or within TLS, after the time-out, and serves others."""
    _trust(t)
    await t.open()
    silent, half = await t.dial_clear(), await t.dial_clear()
    silent.capture, half.capture = bytearray(), bytearray()
    half.write(bytes.fromhex("1603010200010001fc0303"))
    client = await t.greet()
    await client.expect(client.ask(Hello(t.name(), "ANONYMOUS", b"")), Welcome)
    for each in (silent, half):
        await each.wait(
            lambda each=each: each.ended or None,  # type: ignore[misc]
            "the end of a stalled handshake", "RW-HELLO-4", t.time_out("handshake_ms"),
        )  # fmt: skip
