"""Failing scripts as replay files, which `roomwire-check replay` plays again at any server or client.

The header says what failed:

    {"roomwire_replay": 1, "fuzz": "server", "case": "fuzz/server", "verdict": "FAIL", "requirement": ID,
     "expected": TEXT, "got": TEXT, "seed": N, "limits": {NAME: N}}

`fuzz` is "client" for a client's script. `verdict` is FLAKY if the script did not fail again in the same way, and PASS
in `corpus`, whose scripts once failed. `limits` are those that the server was offered. Then comes one line
for each step, as `server/steps.py` or `client/steps.py` describes it; a replay chooses fresh rooms, and ids of the
server's clock. The lines with "wire" behind them are the octets of the run that failed, for people and other tools:
{"wire": CONNECTION, "from": "C" or "S", "hex": HEX}.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.fuzz.client.steps import ClientStep
from conformance.fuzz.failure import Said
from conformance.fuzz.server.steps import Step
from conformance.harness import replay_file
from conformance.harness.replay_file import ReplayError, ReplayFile

_STEPS: dict[str, type[Step] | type[ClientStep]] = {"server": Step, "client": ClientStep}
"""What the steps of a script are, by role."""


@dataclass(frozen=True)
class ScriptFile:
    """A script and what it failed by. `role` is "server" or "client"."""

    role: str
    seed: int
    steps: Sequence[Any]  # of `Step` or `ClientStep`
    requirement: str = ""
    expected: str = ""
    got: str = ""
    verdict: str = "FAIL"
    limits: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path, log: Sequence[Said] = ()) -> None:
        """Writes the file, with what went over the wire. Raises OSError."""
        header = {"fuzz": self.role, "case": f"fuzz/{self.role}", "verdict": self.verdict}
        header |= {name: getattr(self, name) for name in ("requirement", "expected", "got", "seed", "limits")}
        lines = [step.to_json() for step in self.steps]
        lines += [{"wire": said.client, "from": said.sender, "hex": said.octets.hex()} for said in log]
        replay_file.write(path, header, lines)


def read(path: Path) -> ScriptFile:
    """Reads the script in a file. Raises ReplayError."""
    return parse(replay_file.read(path))


def parse(file: ReplayFile) -> ScriptFile:
    """Returns the script in a replay file. Raises ReplayError."""
    header = file.header
    try:
        kind = _STEPS[header["fuzz"]]
        steps = [_typed(kind.from_json(line), kind) for line in file.lines if "wire" not in line]
        texts = {name: str(header[name]) for name in ("requirement", "expected", "got", "verdict")}
        limits = {str(name): int(value) for name, value in dict(header.get("limits", {})).items()}
        return ScriptFile(header["fuzz"], int(header["seed"]), steps, limits=limits, **texts)
    except KeyError as error:
        raise ReplayError(f"{file.path}: {error} is missing or unknown") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ReplayError(f"{file.path}: {error}") from None


def _typed(step: Any, kind: type[Step] | type[ClientStep]) -> Any:
    """The step, whose members have the types of their defaults. Raises TypeError or ValueError."""
    for name, default in vars(kind(step.do)).items():
        value = getattr(step, name)
        items = value if isinstance(value, tuple) else ()
        if type(value) is not type(default) or not all(isinstance(item, str) for item in items):
            raise TypeError(f"{step.do}: {name}: expected {type(default).__name__}, found {value!r}")
        if type(value) is int and not 0 <= value < 2**32:
            raise ValueError(f"{step.do}: {name}: expected 0 to 4294967295, found {value}")
    bytes.fromhex(getattr(step, "octets", ""))
    return step
