"""The cases for servers as test items, for projects that use pytest:

    pytest --pyargs conformance --roomwire-server localhost:7117
    pytest --pyargs conformance --roomwire-exec './my-server --port {port}' -k '7.9 and not spelling'

-k matches ids, requirements and tags. A server that cannot be reached ends the run with an error; it skips no item.
Cases that the target declares as unsupported are skipped; with --roomwire-baseline, expected failures are xfailed.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.commands import arguments
from conformance.harness import baseline, process
from conformance.harness.case import Case, check
from conformance.harness.config import Config, ConfigError
from conformance.harness.options import Options, UsageError
from conformance.harness.process import CommandError, Unreachable, Unstartable
from conformance.harness.verdicts import Result, Verdict
from conformance.report.terminal import failure_lines
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.spec.tables import load

_HERE = Path(__file__).resolve()


class CaseFailed(Exception):
    """A case ended with a verdict that fails the run."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.verdict} {result.id}")
        self.result = result


class Run:
    """The target, which all items share, and its event loop."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption
        address, command = option("--roomwire-server"), option("--roomwire-exec")
        if address and command:
            raise pytest.UsageError("give one of --roomwire-server and --roomwire-exec")
        path = option("--roomwire-config")
        said = Config.read(Path(path)) if path else Config()
        path = option("--roomwire-baseline")
        if command:
            process.arguments(command, {"port": 0, "host": "", "dir": ""})
        self.expected = baseline.read(Path(path)) if path else {}
        self.options = Options(
            timeout=option("--roomwire-timeout"),
            patience=option("--roomwire-patience"),
            declared=said.features,
            limits=said.limits,
            accounts=said.accounts,
            admins=said.admins,
            seed=option("--roomwire-seed"),
            jobs=1,
            command=("roomwire-check", "server", *(("--connect", address) if address else ("--exec", command))),
        )
        ready = self.options.ready
        self.target = LaunchedServer(command, ready) if command else ServerTarget(*arguments.address(address), ready)
        self.loop = asyncio.new_event_loop()
        self._started = False

    def case(self, case: Case) -> Result:
        """Runs one case, and starts the target before the first. Raises Unreachable or Unstartable."""
        return self.loop.run_until_complete(self._case(case))

    async def _case(self, case: Case) -> Result:
        own = "process" in case.tags and isinstance(self.target, LaunchedServer) and not self.target.side_by_side
        if not self._started and not own:
            await self.target.start()
            self._started = True
        runner = ServerRunner(self.target, load(), self.options, lambda result: result)
        [result] = await runner.run([case])
        self._started = self._started and not own  # if so, the runner has stopped it
        return baseline.apply(result, self.expected)

    def end(self) -> None:
        """Stops the target."""
        with contextlib.suppress(Exception):
            self.loop.run_until_complete(self.target.stop())
        self.loop.close()


def make(config: pytest.Config) -> "Plugin":
    """Makes the plugin for the target that the options name. Raises pytest.UsageError."""
    try:
        check(server_cases(), load())
        return Plugin(Run(config))
    except (ConfigError, baseline.BaselineError, CommandError, UsageError) as error:
        raise pytest.UsageError(str(error)) from None


class Plugin:
    """Collects the cases, and stops the target at the end."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> "Suite | None":
        """Collects the whole suite in the place of this file."""
        if file_path.resolve() != _HERE:
            return None
        suite: Suite = Suite.from_parent(parent, path=file_path)
        suite.run = self.run
        return suite

    def pytest_sessionfinish(self) -> None:
        """Stops the target."""
        self.run.end()


class Suite(pytest.File):
    """All cases for servers."""

    run: Run

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each case."""
        for case in server_cases():
            item: CaseItem = CaseItem.from_parent(self, name=case.id)
            item.case, item.run = case, self.run
            item.extra_keyword_matches.update((*case.requirements, *case.tags))
            yield item


class CaseItem(pytest.Item):
    """One case; -k finds it by id, requirements and tags."""

    case: Case
    run: Run

    def runtest(self) -> None:
        """Runs the case. Raises CaseFailed."""
        try:
            result = self.run.case(self.case)
        except (Unreachable, Unstartable) as error:
            pytest.exit(f"roomwire: {error}", returncode=3)
        match result.verdict:
            case Verdict.PASS | Verdict.WARN:
                return
            case Verdict.UNSUPPORTED | Verdict.INFO:
                pytest.skip(f"{result.verdict}: {result.reason}")
            case Verdict.XFAIL:
                pytest.xfail(result.reason)
            case _:
                raise CaseFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The suite's own account of a failure."""
        if not isinstance(excinfo.value, CaseFailed):
            return str(super().repr_failure(excinfo))
        return "\n".join(failure_lines(excinfo.value.result))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The file, no line, and the case's id."""
        return self.path, None, self.case.id
