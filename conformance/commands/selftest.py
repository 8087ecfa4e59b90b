"""`roomwire-check selftest`: runs the suite against programs whose results are known."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import conformance
from conformance.codec.cases import codec_cases
from conformance.codec.runner import CodecRunner
from conformance.commands.arguments import Subparsers
from conformance.commands.selftest_server import Quirk, SmallServer, serving
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, FAULT
from conformance.harness.options import Options
from conformance.harness.selection import Selection
from conformance.harness.verdicts import Result, Verdict
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load

_CASES = (
    "server/3/seq-from-one",
    "server/5.1/answered",
    "server/5.1/wrong-first-octet",
    "server/5.1/http",
    "server/7.7/same-opaque",
    "server/7.9/already-joined",
    "server/7.13/not-joined",
    "server/7.13/ok",
    "server/7.17/order-of-one-connection",
    "server/7.17/all-members",
    "server/9.3/left-by-leave",
    "server/9.3/lost-by-close",
)
_CODEC = "codec/7.6"


@dataclass(frozen=True)
class Expectation:
    """What a target must do: `fails` holds cases that fail, none for a correct target, None where all may fail."""

    title: str
    quirk: Quirk
    fails: frozenset[str] | None


_HOLDS = frozenset[str]()
_EXPECTED = (
    Expectation("a small server", "", _HOLDS),
    Expectation(
        "one that refuses with the wrong code",
        "wrong-code",
        frozenset({"server/7.9/already-joined", "server/7.13/not-joined", "server/7.13/ok"}),
    ),
    Expectation(
        "one that loses messages",
        "loses-messages",
        frozenset({"server/7.17/order-of-one-connection", "server/7.17/all-members"}),
    ),
    Expectation("one that echoes before it acknowledges", "echo-before-ack", frozenset({"server/3/seq-from-one"})),
    Expectation("one that closes at once", "closes", None),
    Expectation("one that says nothing", "silent", None),
    Expectation("one that sends random octets", "rubbish", None),
)
_OPTIONS = Options(timeout=5.0, patience=5.0, ready=15.0)
_HASTY = Options(timeout=0.3, patience=0.3, ready=1.0, jobs=20)


def add_to(subparsers: Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("selftest", help="check that the suite itself works on this machine")
    parser.set_defaults(run=lambda args: asyncio.run(_run()))


async def _run() -> int:
    """Prints how each target did. Returns CONFORMS if all did as expected, else FAULT."""
    wrong = 0
    cases = Selection(_CASES).of(server_cases(), load())
    for expected in _EXPECTED:
        results = await _server(expected.quirk, cases)
        complaint = judge(expected, results, len(_CASES))
        wrong += bool(complaint)
        _say(expected.title, results, complaint)
    codec = Selection([_CODEC]).of(codec_cases(), load())
    results = await CodecRunner(_codec(), load(), _OPTIONS, lambda result: result).run(codec)
    complaint = judge(Expectation("", "", _HOLDS), results, len(codec))
    wrong += bool(complaint)
    _say("a codec in a process of its own", results, complaint)
    print("the suite works on this machine" if not wrong else "the suite does not work on this machine")
    return CONFORMS if not wrong else FAULT


def _codec() -> str:
    """The command of the codec, which finds this suite, also if the working directory has a module of its name."""
    home = str(Path(conformance.__file__).resolve().parent.parent)
    run = f"import sys; sys.path.append({home!r}); from conformance.codec.reference import main; main()"
    return shlex.join([sys.executable, "-P", "-c", run]).replace("{", "{{").replace("}", "}}")


async def _server(quirk: Quirk, cases: Sequence[Case]) -> list[Result]:
    options = _HASTY if quirk in ("closes", "silent", "rubbish") else _OPTIONS
    async with serving(SmallServer(quirk).connected) as port:
        target = ServerTarget("127.0.0.1", port, options.ready)
        return await ServerRunner(target, load(), options, lambda result: result).run(cases)


def judge(expected: Expectation, results: Sequence[Result], count: int) -> str:
    """What differs from the expectation, or ""."""
    if len(results) != count:
        return f"{len(results)} results instead of {count}"
    passed = {result.id for result in results if result.verdict is Verdict.PASS}
    failed = {result.id for result in results if result.verdict in (Verdict.FAIL, Verdict.CRASH)}
    if any(result.verdict is Verdict.HARNESS_ERROR for result in results):
        return next(result.reason for result in results if result.verdict is Verdict.HARNESS_ERROR)
    if expected.fails is None:
        return f"passed: {', '.join(sorted(passed))}" if passed else "" if failed else "nothing failed"
    if not expected.fails:
        others = [result for result in results if result.verdict is not Verdict.PASS]
        return "; ".join(f"{r.id} {r.verdict}: {r.reason or r.got}" for r in others)
    if not expected.fails <= failed:
        return f"did not fail: {', '.join(sorted(expected.fails - failed))}"
    return "" if passed else "nothing passed"


def _say(title: str, results: Sequence[Result], complaint: str) -> None:
    passed = sum(result.verdict is Verdict.PASS for result in results)
    print(f"{'ok   ' if not complaint else 'WRONG'} {title}: {passed} of {len(results)} cases pass")
    if complaint:
        print(f"      {complaint}")
