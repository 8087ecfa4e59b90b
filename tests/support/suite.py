"""The suite as tests run it: the commands of reference programs, and cases at the small server of `selftest`."""

import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

from conformance.commands.selftest_server import Quirk, SmallServer, serving
from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.selection import Selection
from conformance.harness.verdicts import Result
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from tests.support import virtual_time

PYTHON = shlex.quote(sys.executable)
SERVER = f"{PYTHON} -m reference_server.cli --port {{port}}"
CLIENT = f"{PYTHON} -m reference_client.adapter {{host}} {{port}}"
CODEC = f"{PYTHON} -m conformance.codec.reference"
OPTIONS = Options(timeout=2.0, patience=2.0)


def select(*ids: str) -> list[Case]:
    """The cases for servers with these ids, or leading parts of ids."""
    return Selection(ids).of(server_cases(), load())


def of_each_section(cases: Iterable[Case], count: int = 1) -> list[str]:
    """The ids of the first cases of each section, for a run in which the process is the point."""
    taken = defaultdict[str, list[str]](list)
    for case in cases:
        taken[case.section].append(case.id)
    return [id for ids in taken.values() for id in ids[:count]]


def run_at_small_server(quirk: Quirk, cases: Sequence[Case], options: Options = OPTIONS) -> list[Result]:
    """Runs cases at a small server that has a quirk, in virtual time."""

    async def run() -> list[Result]:
        async with serving(SmallServer(quirk).connected) as port:
            target = ServerTarget("127.0.0.1", port, 5.0)
            return await ServerRunner(target, load(), options, lambda result: result).run(cases)

    return virtual_time.run(run())
