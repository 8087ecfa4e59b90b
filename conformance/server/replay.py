"""Takes the steps of a file of `recording` at any server, and judges what the server does this time.

What depends on the server or the day is replaced: refs and epochs of rooms, the times in ids, and the part of names
that makes them fresh. The verdict is FAIL if something that the case waited for does not come, or if something comes
that breaks a requirement. It is PASS if the step that failed in the recording succeeds. Where the case judged by
comparing what had come, it is FAIL if the same comes again, else INCONCLUSIVE, because only the case can tell.
"""

import contextlib
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from conformance.harness import replay_file
from conformance.harness.case import Case
from conformance.harness.replay_file import ReplayError, ReplayFile
from conformance.harness.verdicts import Failed, Inconclusive
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.server.replay_steps import wrong
from conformance.spec.tables import load
from conformance.wire import clock
from conformance.wire.octets import CLIENT_PREFACE, HEADER, decode, frame, read_header, split_frames
from conformance.wire.text import frame_line
from protocol.errors import RemoteProtocolError
from protocol.frames import FRAMES, Error, Frame, Goaway, Join, Joined, Publish, Unknown, Welcome
from protocol.registry import Code, FrameType, Sender

_SETTLED = 1.0  # seconds that recorded frames may take to come again before the next step


@dataclass(frozen=True)
class Script:
    """The steps of a case. What the case judged by comparing is INCONCLUSIVE unless it is `compared` here."""

    header: dict[str, Any]
    steps: list[dict[str, Any]]
    compared: bool = True

    @property
    def case(self) -> Case:
        """A case that takes the steps, under the id of the case that they come from."""
        id, requirement = str(self.header["case"]), str(self.header["requirement"])
        own = any(step["do"] == "server" for step in self.steps)
        summary = f"Replayed: expected {self.header['expected']}, got {self.header['got']}"

        async def run(t: Context) -> None:
            await _Replay(t, self).run()

        tags = frozenset({"process"}) if own else frozenset[str]()
        return Case(id, id.split("/")[1], (requirement,), summary, run, tags)


def read(path: Path) -> Script:
    """Reads the script in a file. Raises ReplayError."""
    return parse(replay_file.read(path))


def parse(file: ReplayFile) -> Script:
    """Returns the script in a replay file. Raises ReplayError."""
    if fault := _wrong_header(file.header) or wrong(file.lines):
        raise ReplayError(f"{file.path}: {fault}")
    if not file.lines:
        raise ReplayError(f"{file.path}: it has no steps")
    return Script(file.header, file.lines)


def _wrong_header(header: dict[str, Any]) -> str:
    """What is wrong with a header; "" if nothing is."""
    missing = [name for name in ("case", "requirement", "expected", "got", "names") if name not in header]
    if missing:
        return f"its header has no {missing[0]!r}"
    if not re.fullmatch(r"server/[^/]+/[^/]+", str(header["case"])):
        return f"expected a case of a server in its header, found {header['case']!r}"
    if str(header["requirement"]) not in load().requirements:
        return f"its header names {header['requirement']!r}, which SPEC.md does not have"
    if not re.fullmatch(r"[0-9a-f]+", str(header["names"])):
        return f'expected hexadecimal digits as the "names" of its header, found {header["names"]!r}'
    return ""


@dataclass
class _Replay:
    """One run of a script. `refs` and `epochs` lead from the recording to this run; `clock` is added to times."""

    t: Context
    script: Script
    peers: dict[str, RawClient] = field(default_factory=dict)
    recorded: dict[str, list[Frame | Unknown]] = field(default_factory=dict)
    refs: dict[int, int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    clock: int = 0

    async def run(self) -> None:
        """Takes all steps. Raises Failed for what goes wrong, and Inconclusive if only the case can tell."""
        steps = self.script.steps
        for at, step in enumerate(steps):
            do = step["do"]
            if do == "server":
                await self.t.own_server(**step["limits"])
            elif do == "restart":
                await self.t.crash_and_restart(**step["limits"])
            elif do == "drain":
                self.t.drain()
            elif do == "connect":
                self.peers[step["peer"]] = await self.t.dial(receive_buffer=step["buffer"])
            elif do == "receive":
                octets = bytes.fromhex(step["hex"])
                self.recorded.setdefault(step["peer"], []).append(_decoded(octets, "S"))
            elif do == "expect":
                await self._expect(self.peers[step["peer"]], step)
            else:
                await self._settled()
                await self._act(self.peers[step["peer"]], step)
            self._learn()
            if do != "receive" and at == self._last:
                await self._settled()
        await self.t.finish()
        if steps[self._last]["do"] != "expect":
            self._compare()

    @property
    def _last(self) -> int:
        """The last step that is not the end of a connection or a frame that came."""
        done = [at for at, step in enumerate(self.script.steps) if step["do"] not in ("close", "receive")]
        return done[-1] if done else -1

    async def _act(self, peer: RawClient, step: dict[str, Any]) -> None:
        octets = self._fresh(bytes.fromhex(step.get("hex", "")))
        match step["do"]:
            case "preface":
                peer.send_preface(octets or CLIENT_PREFACE, breaks=step.get("breaks", ""))
            case "send":
                sent = self._translated(octets)
                peer.send_octets(sent, breaks=step.get("breaks", ""), slices=_cut(sent, step["slices"]))
            case "write":
                peer.write(octets)
            case "pause":
                peer.pause(step["paused"])
            case "eof":
                peer.send_eof()
            case "close":
                await peer.close(abort=step["abort"])
            case unknown:
                raise Inconclusive(f"the file has a step {unknown!r} that this version does not know")

    async def _expect(self, peer: RawClient, step: dict[str, Any]) -> None:
        requirement, within = step.get("requirement", ""), step.get("within")
        room = step.get("room")
        room = room if room is None else self.refs.get(room, room)
        if "reply" in step and "code" in step:
            await peer.expect_error(step["reply"], Code(step["code"]), requirement, room)
        elif "reply" in step and "frame" in step:
            await peer.expect(step["reply"], _kind(step["frame"]), requirement)
        elif "reply" in step:
            await peer.reply(step["reply"], requirement, within)
        elif "goaway" in step:
            await peer.expect_goaway(Code(step["goaway"]), requirement, within, closed=step["closed"])
        elif "closed" in step:
            await peer.expect_closed(requirement, within)
        elif "silent" in step:
            await peer.expect_silent_close(requirement, within)
        elif "message" in step:
            await peer.until(room or 0, self._id(bytes.fromhex(step["message"])), requirement)
        elif "frame" in step:
            await peer.expect_frame(_kind(step["frame"]), requirement=requirement, within=within)
        else:
            await peer.expect_preface(requirement)

    async def _settled(self) -> None:
        """Waits a while for as many frames as had come before this step in the recording."""
        deadline = clock.now() + min(_SETTLED, self.t.options.timeout)
        for label, frames in self.recorded.items():
            peer, left = self.peers.get(label), deadline - clock.now()
            if peer is not None and left > 0:
                with contextlib.suppress(Failed):  # it is judged at the end
                    await peer.wait(partial(_as_many, peer, len(frames)), "as many frames", within=left)
        self._learn()

    def _learn(self) -> None:
        """Finds refs, epochs and a clock of this server that correspond to those of the recording."""
        for label, frames in self.recorded.items():
            came = [item.frame for item in self.peers[label].received] if label in self.peers else []
            answers = {frame.request: frame for frame in came if isinstance(frame, (Welcome, Joined))}
            for old in frames:
                new = answers.get(old.request)
                if isinstance(old, Welcome) and isinstance(new, Welcome) and not self.clock:
                    self.clock = new.now_ms - old.now_ms
                if isinstance(old, Joined) and isinstance(new, Joined):
                    self.refs[old.room] = new.room
                    self.epochs[old.epoch] = new.epoch

    def _fresh(self, octets: bytes) -> bytes:
        return octets.replace(str(self.script.header["names"]).encode(), self.t.fresh.encode())

    def _id(self, id: bytes) -> bytes:
        moment = int.from_bytes(id[:6], "big")
        recent = moment > 10**12  # other times are wrong on purpose
        return (moment + self.clock * recent).to_bytes(6, "big") + id[6:]

    def _translated(self, octets: bytes) -> bytes:
        frames, rest = split_frames(octets)
        return b"".join(map(self._one, frames)) + rest

    def _one(self, octets: bytes) -> bytes:
        header, body = read_header(octets), octets[HEADER.size :]
        room = self.refs.get(header.room, header.room)
        value = _decoded(octets, "C")
        if isinstance(value, Publish):
            body = self._id(body[:16]) + body[16:]
        elif isinstance(value, Join) and value.epoch in self.epochs:
            at = 1 + body[0]
            body = body[:at] + self.epochs[value.epoch].to_bytes(8, "big") + body[at + 8 :]
        return frame(header.type, body, request=header.request, room=room, flags=header.flags)

    def _compare(self) -> None:
        """Raises Failed if all frames come as in the recording, and Inconclusive if not."""
        if not self.script.compared:
            raise Inconclusive("the case judged what had come, and only the case can tell")
        for label, frames in self.recorded.items():
            came = [item.frame for item in self.peers[label].received]
            for old, new in zip(frames, came, strict=False):
                if _shape(old) != _shape(new):
                    raise Inconclusive(f"recorded was {frame_line(old)}, this time came {frame_line(new)}")
            if len(frames) > len(came):
                raise Inconclusive(f"recorded was {frame_line(frames[len(came)])}, this time it did not come")
        raise Failed(str(self.script.header["expected"]), f"{self.script.header['got']}, as when it was recorded")


def _as_many(peer: RawClient, count: int) -> bool | None:
    return len(peer.received) >= count or None


def _shape(value: Frame | Unknown) -> tuple[object, ...]:
    """Returns what of a frame does not depend on the server and the day."""
    kind = value.type if isinstance(value, Unknown) else value.TYPE
    code = value.code if isinstance(value, (Error, Goaway)) else None
    return kind, value.flags, value.request, code, getattr(value, "seq", None), getattr(value, "payload", None)


def _decoded(octets: bytes, sender: Sender) -> Frame | Unknown:
    header = read_header(octets)
    try:
        return decode(header, octets[HEADER.size :], sender)
    except RemoteProtocolError:
        return Unknown(header.type, octets[HEADER.size :], header.flags, header.request, header.room)


def _cut(octets: bytes, lengths: list[int]) -> list[bytes]:
    pieces = []
    for length in lengths:
        pieces.append(octets[:length])
        octets = octets[length:]
    return pieces


def _kind(name: str) -> Any:
    return FRAMES[FrameType[name]]
