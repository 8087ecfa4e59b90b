"""Section 5.1: the preface."""

from collections.abc import Awaitable, Callable

from conformance.client.cases.steps import add, case
from conformance.client.context import Context
from conformance.client.raw_server import SERVER_PREFACE
from protocol.frames import Hello


@case("5.1/waits-for-preface", "RW-PREFACE-1", "RW-HELLO-1")
async def waits_for_preface(t: Context) -> None:
    """The client sends its preface, and HELLO only after the whole preface of the server."""
    server = await t.dialled()
    t.require(server.preface[4] <= 1 <= server.preface[5], "version 1 in its range", server.preface.hex())
    for octet in SERVER_PREFACE[:-1]:
        server.write(bytes([octet]))
        await server.flush()
        await t.alive()
        t.require(not server.received, "nothing before the whole preface", server.received)
    server.invariants.prefaced = True
    server.write(SERVER_PREFACE[-1:])
    await server.expect(Hello, "RW-HELLO-1")


@case("5.1/zero-fields-ignored", "RW-PREFACE-7")
async def zero_fields_ignored(t: Context) -> None:
    """The client ignores the values of the zero fields in the server's preface."""
    server = await t.dialled()
    server.send_preface(SERVER_PREFACE[:5] + b"\x01\xfe\xff", breaks="RW-PREFACE-7")
    hello = await server.expect(Hello, "RW-PREFACE-7")
    server.send(t.welcome(hello))
    await t.report("connected", requirement="RW-PREFACE-7")


def _left(octets: bytes, requirement: str) -> Callable[[Context], Awaitable[None]]:
    async def run(t: Context) -> None:
        server = await t.dialled()
        server.send_preface(octets, breaks=requirement)
        await server.expect_end(requirement)
        t.require(not server.received, "nothing sent after that", [i.frame for i in server.received], requirement)
        await t.report("disconnected", requirement=requirement)
        await t.alive()

    return run


for _name, _octets in {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "first-octet": b"\x16",
    "second-octet": b"\xf5\x00",
    "last-octet": bytes.fromhex("F5525751"),
    "zeros": bytes(8),
}.items():
    _text = f"The client closes the connection at the first octet of another magic ({_name}), and sends nothing more."
    add(f"5.1/wrong-magic-{_name}", ["RW-PREFACE-5"], _text, _left(_octets, "RW-PREFACE-5"))


for _version in (0, 2, 255):
    _text = (
        f"The client closes the connection after version {_version}, which it does not speak, and sends nothing more."
    )
    _octets = SERVER_PREFACE[:4] + bytes([_version, 0, 0, 0])
    add(f"5.1/version-{_version}", ["RW-PREFACE-8"], _text, _left(_octets, "RW-PREFACE-8"))
