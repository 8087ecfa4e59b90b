"""Section 8.7: connecting again."""

from conformance.client.cases.steps import SLACK, add, case, goaway_octets
from conformance.client.context import RECONNECTS_WITHIN, Context
from conformance.client.raw_server import SERVER_PREFACE, RawServer
from protocol.frames import Error
from protocol.registry import Code, Flag

_NO_MORE = RECONNECTS_WITHIN + 0.4  # seconds after which a client that connects again has done so
_SPREAD = 0.02  # seconds by which random waits differ at least, except with a chance of 1 in 10,000


@case("8.7/by-itself", "RW-RECONNECT-1", tags=["waits"])
async def by_itself(t: Context) -> None:
    """The client connects again after a lost connection, within waits of at most 1 s, 2 s and 4 s."""
    t.needs("reconnect")
    server = await t.dialled()
    await t.opened(server)
    for bound in (1.0, 2.0, 4.0):
        began = server.now()
        await server.close(abort=True)
        server = await t.accept("RW-RECONNECT-1", bound + t.options.timeout)
        waited = server.at - began
        t.require(waited <= bound + SLACK, f"a wait of at most {bound:g} s", f"{waited:.2f} s", "RW-RECONNECT-3")
        await t.opened(server)


@case("8.7/random", "RW-RECONNECT-3", tags=["waits"])
async def random_waits(t: Context) -> None:
    """The client waits for a random time below 1 s; an orderly end does not raise that bound."""
    t.needs("reconnect")
    server = await t.open()
    waits = await _waits(t, server, goaway_octets(Code.NONE), 5)
    t.require(max(waits) <= 1 + SLACK, "at most 1 s each", waits)
    t.require(max(waits) - min(waits) > _SPREAD, "waits that differ", waits)


async def _waits(t: Context, server: RawServer, goaway: bytes, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        began = server.now()
        server.send_octets(goaway)
        await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
        await server.close()
        server = await t.accept("RW-RECONNECT-1", t.options.timeout + 3)
        waits.append(round(server.at - began, 3))
        await t.opened(server)
    return waits


@case("8.7/retry-and-jitter", "RW-RECONNECT-2", tags=["waits"])
async def retry_and_jitter(t: Context) -> None:
    """The client waits for retry_ms and a random part of jitter_ms after GOAWAY with RETRY."""
    t.needs("reconnect")
    server = await t.open()
    waits = await _waits(t, server, goaway_octets(Code.SHUTDOWN, 1000, 500), 4)
    t.require(min(waits) >= 1.0, "at least 1 s each", waits)
    t.require(max(waits) <= 1.5 + SLACK, "at most 1.5 s each", waits)
    t.require(max(waits) - min(waits) > _SPREAD / 2, "waits that differ", waits)


@case("8.7/after-draining", "RW-RECONNECT-2", tags=["waits"])
async def after_draining(t: Context) -> None:
    """The client waits for the time in GOAWAY(DRAINING), where the connection ends without another GOAWAY."""
    t.needs("reconnect")
    server = await t.open()
    began = server.now()
    server.send_octets(goaway_octets(Code.DRAINING, 1500, 0))
    await server.expect_goaway(Code.NONE)
    await server.close()
    server = await t.accept("RW-RECONNECT-1", t.options.timeout + 2)
    t.require(server.at - began >= 1.5, "at least 1.5 s", f"{server.at - began:.2f} s")


@case("8.7/refused-hello", "RW-RECONNECT-2", tags=["waits"])
async def refused_hello(t: Context) -> None:
    """The client waits for retry_ms of an ERROR to HELLO with RETRY."""
    t.needs("reconnect")
    server, hello = await t.greeted()
    began = server.now()
    server.send(Error(Code.SERVER_FULL, 1200, "full", flags=Flag.RETRY, request=hello.request))
    server.send_octets(goaway_octets(Code.SERVER_FULL, 1200))
    await server.expect_end("RW-CLOSE-4")
    server = await t.accept("RW-RECONNECT-1", t.options.timeout + 2)
    t.require(server.at - began >= 1.2, "at least 1.2 s", f"{server.at - began:.2f} s")


@case("8.7/backs-off", "RW-RECONNECT-3", tags=["waits"])
async def backs_off(t: Context) -> None:
    """The client pauses between attempts at a server that fails at once."""
    t.needs("reconnect")
    server = await t.dialled()
    began = server.now()
    for bound in (1.0, 2.0, 4.0):
        ended = server.now()
        await server.close()
        server = await t.accept("RW-RECONNECT-1", bound + t.options.timeout)
        waited = server.at - ended
        t.require(waited <= bound + SLACK, f"a wait of at most {bound:g} s", f"{waited:.2f} s")
    t.require(server.at - began > 0.1, "a pause between attempts", f"{server.at - began:.3f} s for three")


async def _come_back(t: Context) -> RawServer:
    """The control of what follows: this client connects again after an ordinary end."""
    t.needs("reconnect")
    server = await t.open()
    async with t.control("connecting again"):
        server.send_octets(goaway_octets(Code.NONE))
        await server.expect_goaway(Code.NONE)
        await server.close()
        server = await t.accept(within=t.options.timeout + RECONNECTS_WITHIN)
        await server.expect_preface()
    return server


_FINAL = {
    "auth-failed": Code.AUTH_FAILED,
    "unsupported-mechanism": Code.UNSUPPORTED_MECHANISM,
    "tls-required": Code.TLS_REQUIRED,
    "name-invalid": Code.NAME_INVALID,
}

for _name, _final in _FINAL.items():

    async def _refusal(t: Context, code: Code = _final) -> None:
        server = await _come_back(t)
        hello = await t.hello(server)
        server.send(Error(code, 0, "no", request=hello.request))
        server.send_octets(goaway_octets(code))
        await server.expect_end("RW-CLOSE-4")
        await t.report("closed", requirement="RW-RECONNECT-4")
        await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")

    _text = f"The client does not connect again by itself after ERROR({_final.name}) to HELLO."
    add(f"8.7/never-{_name}", ["RW-RECONNECT-4"], _text, _refusal, ["waits"])


for _name, _code in (("revoked", Code.ACCOUNT_REVOKED), ("abuse", Code.ABUSE), ("unknown-2xx", 299)):

    async def _sent_away(t: Context, code: int = _code) -> None:
        server = await _come_back(t)
        await t.opened(server)
        await server.fence()
        server.send_octets(goaway_octets(code))
        await server.expect_end("RW-CLOSE-4")
        await t.report("closed", requirement="RW-RECONNECT-4")
        await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")

    _text = f"The client does not connect again by itself after GOAWAY with code {int(_code)} ({_name})."
    add(f"8.7/never-{_name}", ["RW-RECONNECT-4"], _text, _sent_away, ["waits"])


@case("8.7/never-version-0", "RW-RECONNECT-4", tags=["waits"])
async def version_0(t: Context) -> None:
    """The client does not connect again by itself after version 0."""
    server = await _come_back(t)
    server.send_preface(SERVER_PREFACE[:4] + bytes(4), breaks="RW-PREFACE-8")
    await server.expect_end("RW-PREFACE-8")
    await t.report("closed", requirement="RW-RECONNECT-4")
    await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")
