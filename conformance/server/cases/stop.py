"""Section 7.20: STOP."""

from typing import cast

from conformance.harness.verdicts import Unsupported
from conformance.server.cases.accounts import declared_account, logged_in
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.wire.text import frame_line
from protocol.frames import Goaway, Ok, Stop
from protocol.registry import Code


@case("7.20/stop-forbidden-account", "RW-STOP-1")
async def stop_forbidden_account(t: Context) -> None:
    """The server answers STOP of an account that may not stop it with ERROR(FORBIDDEN), and goes on."""
    name, password = declared_account(t)
    client = await logged_in(t, name, password, "admin")
    t.needs(client, "admin")
    await client.expect_error(client.ask(Stop()), Code.FORBIDDEN, "RW-STOP-1", room=0)
    await client.fence()
    await t.alive()


@case("7.20/stop", "RW-STOP-2", "RW-DRAIN-3", tags=["process"])
async def stop(t: Context) -> None:
    """The server answers STOP of an account that may stop it with OK, then drains every connection."""
    if not t.options.admins:
        raise Unsupported("the run declares no account that may stop the server ([admins] in the file of --config)")
    await t.own_server(drain_ms=1_000)
    name, password = next(iter(t.options.admins.items()))
    client = await logged_in(t, name, password, "admin")
    t.needs(client, "admin")
    other, _ = await t.member()
    await client.expect(client.ask(Stop()), Ok, "RW-STOP-2")
    for each in (client, other):
        goaway = await each.wait(lambda each=each: each.find(Goaway), "GOAWAY", "RW-STOP-2")  # type: ignore[misc]
        codes = (Code.DRAINING, Code.SHUTDOWN)
        t.require(cast(Goaway, goaway).code in codes, "GOAWAY(DRAINING)", frame_line(goaway), "RW-STOP-2")


@case("7.20/stop-forbidden", "RW-STOP-1")
async def stop_forbidden(t: Context) -> None:
    """The server answers STOP of an anonymous client with ERROR(FORBIDDEN), and goes on."""
    client = await t.open(extension_names=["admin"])
    t.needs(client, "admin")
    await client.expect_error(client.ask(Stop()), Code.FORBIDDEN, room=0)
    await t.alive()
