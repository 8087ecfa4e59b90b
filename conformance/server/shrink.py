"""Makes a failing script shorter: leaves out steps while it still fails in the same way."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from sys import stderr
from typing import Any

from conformance.harness.ddmin import fewest, smallest_async
from conformance.harness.options import Options
from conformance.harness.replay_file import ReplayError
from conformance.harness.verdicts import Result, Verdict
from conformance.server.replay import Script
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, decode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Message, Publish
from protocol.registry import FrameType

Steps = list[dict[str, Any]]
_FAILED = (Verdict.FAIL, Verdict.WARN, Verdict.CRASH)


async def shrunk(script: Script, target: ServerTarget, options: Options) -> Script:
    """Returns the script without the steps that its failure at this target does not need.

    Raises ReplayError if it does not fail there, or if only the case can tell that it does.
    """
    tried = 0

    async def fails(shorter: Script) -> bool:
        nonlocal tried
        tried += 1
        [result] = await ServerRunner(target, load(), options, _unseen).run([shorter.case])
        return result.verdict in _FAILED and result.requirement == script.header["requirement"]

    if not await fails(replace(script, compared=False)):
        raise ReplayError(
            f"{script.header['case']} does not fail here by a requirement alone: there is nothing to shrink"
        )
    shorter = replace(await _shorter(script, fails), compared=True)
    print(
        f"left out {len(script.steps) - len(shorter.steps)} of {len(script.steps)} steps in {tried} tries", file=stderr
    )
    return shorter


def _unseen(result: Result) -> Result:
    return result


async def _shorter(script: Script, fails: Callable[[Script], Awaitable[bool]]) -> Script:
    steps = script.steps
    needed = _needed(steps)
    free = [at for at, step in enumerate(steps) if step["do"] != "receive" and at not in needed]

    async def still(kept: list[int]) -> bool:
        return await fails(Script(script.header, _only(steps, needed | set(kept)), compared=False))

    left = await smallest_async(free, fewest, still)
    return Script(script.header, _only(steps, needed | set(left)))


def _needed(steps: Steps) -> set[int]:
    """The steps without which any server would fail the last expectation.

    Invariants, which are checked on every connection, need none.
    """
    last = max((at for at, step in enumerate(steps) if step["do"] not in ("close", "receive")), default=0)
    if not steps or steps[last]["do"] != "expect":
        return set()
    needed, found = set[int](), {last}
    while found:
        at = found.pop()
        needed.add(at)
        found |= _grounds(steps, at) - needed
    return needed


def _grounds(steps: Steps, at: int) -> set[int]:
    """The steps that a step relies on: a handshake, JOINs of its rooms, the request or message that it waits for."""
    step, before = steps[at], range(at)
    if "peer" not in step:
        return set()
    mine = [i for i in before if steps[i].get("peer") == step["peer"]]
    hello = next((i for i in mine if steps[i]["do"] == "send"), at)
    grounds = {i for i in mine if steps[i]["do"] in ("connect", "preface")} | {hello}
    grounds |= {i for i in before if steps[i]["do"] in ("server", "restart")}
    rooms = ({read_header(frame).room for frame in _frames(step)} | {step.get("room") or 0}) - {0}
    joins = {read_header(_frames(steps[i])[0]).request for i in mine if _joined(steps[i]) in rooms}
    if step["do"] == "expect":
        asked, id = step.get("reply"), step.get("message")
        if "code" in step or (asked is None and id is None):
            return set(before)  # any step before it may be the reason
        joins |= {asked} if asked is not None else set()
        grounds |= {i for i in before if id is not None and bytes.fromhex(id) in _ids(steps[i])}
    grounds |= {i for i in before if set(_ids(steps[i])) & set(_ids(step))}
    return grounds | {i for i in mine if steps[i]["do"] == "send" and joins & set(_requests(steps[i]))}


def _only(steps: Steps, kept: set[int]) -> Steps:
    """The steps that are kept, on connections that are made, and the frames that may come because of them."""
    taken = [step for at, step in enumerate(steps) if at in kept or step["do"] == "receive"]
    made = {step["peer"] for step in taken if step["do"] == "connect"}
    taken = [step for step in taken if step.get("peer", next(iter(made), "")) in made]
    asked = {(step["peer"], request) for step in taken if step["do"] == "send" for request in _requests(step)}
    ids = {id for step in taken for id in _ids(step)}
    return [step for step in taken if step["do"] != "receive" or _may_come(step, asked, ids)]


def _frames(step: dict[str, Any]) -> list[bytes]:
    return split_frames(bytes.fromhex(step["hex"]))[0] if step["do"] in ("send", "receive") else []


def _requests(step: dict[str, Any]) -> list[int]:
    return [read_header(frame).request for frame in _frames(step)]


def _joined(step: dict[str, Any]) -> int:
    """The ref in a step that is a JOINED that came, or 0."""
    frames = _frames(step) if step["do"] == "receive" else []
    return read_header(frames[0]).room if frames and read_header(frames[0]).type == FrameType.JOINED else 0


def _ids(step: dict[str, Any]) -> list[bytes]:
    """The ids of the publishes that a step sends."""
    found = []
    for octets in _frames(step) if step["do"] == "send" else []:
        try:
            frame = decode(read_header(octets), octets[HEADER.size :], "C")
        except RemoteProtocolError:
            continue
        found += [frame.id] if isinstance(frame, Publish) else []
    return found


def _may_come(step: dict[str, Any], asked: set[tuple[str, int]], ids: set[bytes]) -> bool:
    octets = bytes.fromhex(step["hex"])
    header = read_header(octets)
    if header.request:
        return (step["peer"], header.request) in asked
    try:
        frame = decode(header, octets[HEADER.size :], "S")
    except RemoteProtocolError:
        return True
    return not isinstance(frame, Message) or frame.id in ids
