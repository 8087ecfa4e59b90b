"""Failing scripts as files of JSON lines, which `roomwire-check replay` plays again at any server, or client.

The first line says what failed:

    {"roomwire_replay": 1, "fuzz": "server", "case": "fuzz/server", "verdict": "FAIL", "requirement": ID,
     "expected": TEXT, "got": TEXT, "seed": N, "limits": {NAME: N}}

`verdict` is FLAKY where the same script did not fail the same way again; "PASS" in conformance/corpus, whose scripts
once failed. "fuzz" is "client" for a client's script. `limits` are those that the server was offered. Then one line for
each step, as `steps.Step` or `client_steps.ClientStep` has it; a replay chooses fresh rooms, and ids of the server's
clock. The lines behind, with "wire", are the octets of the run that failed, for people and other tools:
{"wire": CONNECTION, "from": "C" or "S", "hex": HEX}.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.fuzz.client.steps import ClientStep
from conformance.fuzz.failure import Said
from conformance.fuzz.server.steps import Step

FORMAT = 1


class ScriptFileError(ValueError):
    """The file cannot be read, or is not one of the fuzzer's."""


@dataclass(frozen=True)
class ScriptFile:
    """A file of a script. `role`: "server" or "client", whose script it is."""

    role: str
    seed: int
    steps: Sequence[Any]  # of `steps.Step` or `client_steps.ClientStep`
    requirement: str = ""
    expected: str = ""
    got: str = ""
    verdict: str = "FAIL"
    limits: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path, log: Sequence[Said] = ()) -> None:
        """Writes the file, with what went over the wire."""
        header = {"roomwire_replay": FORMAT, "fuzz": self.role, "case": f"fuzz/{self.role}", "verdict": self.verdict}
        names = ("requirement", "expected", "got", "seed", "limits")
        lines: list[dict[str, Any]] = [header | {name: getattr(self, name) for name in names}]
        lines += [step.to_json() for step in self.steps]
        lines += [{"wire": said.client, "from": said.sender, "hex": said.octets.hex()} for said in log]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def is_fuzz(path: Path) -> bool:
    """Whether a file is one of the fuzzer's, and not one of a case."""
    try:
        with path.open(encoding="utf-8") as lines:
            return json.loads(lines.readline()).get("fuzz") in ("server", "client")
    except (OSError, ValueError, AttributeError):
        return False


def read(path: Path) -> ScriptFile:
    """The script in a file. Raises ScriptFileError."""
    try:
        header, *rest = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if header["roomwire_replay"] != FORMAT or header["fuzz"] not in ("server", "client"):
            raise ScriptFileError(f"{path}: not a replay file of the fuzzer, of format {FORMAT}")
        kind = Step if header["fuzz"] == "server" else ClientStep
        steps = [kind.from_json(line) for line in rest if "wire" not in line]
        texts = {name: str(header[name]) for name in ("requirement", "expected", "got", "verdict")}
        return ScriptFile(header["fuzz"], int(header["seed"]), steps, limits=dict(header.get("limits", {})), **texts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise error if isinstance(error, ScriptFileError) else ScriptFileError(f"{path}: {error!r}") from None
