"""The cases of one role as test items, for projects that use pytest:

    pytest --pyargs conformance --roomwire-server localhost:7117
    pytest --pyargs conformance --roomwire-exec './my-server --port {port}' -k '7.9 and not spelling'
    pytest --pyargs conformance --roomwire-client './my-client {host} {port}'
    pytest --pyargs conformance --roomwire-codec ./my-codec

-k matches ids, requirements and tags. A target that cannot be reached ends the run with an error; it skips no item.
Cases that the target declares as unsupported are skipped; with --roomwire-baseline, expected failures are xfailed.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import launcher
from conformance.codec.cases import codec_cases
from conformance.codec.runner import CodecRunner
from conformance.commands import arguments
from conformance.harness import baseline, process
from conformance.harness.case import Case, check
from conformance.harness.config import Config
from conformance.harness.exit_status import UsageError
from conformance.harness.judge import RunOne
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
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


class Server:
    """A server, and its cases one by one. It starts before the first that does not start one of its own."""

    def __init__(self, target: ServerTarget, options: Options) -> None:
        self._target = target
        self._options = options
        self._started = False

    async def run(self, case: Case) -> Result:
        """Runs a case. Raises Unreachable or Unstartable."""
        target = self._target
        own = "process" in case.tags and isinstance(target, LaunchedServer) and not target.side_by_side
        if not self._started and not own:
            await target.start()
            self._started = True
        [result] = await ServerRunner(target, load(), self._options, lambda result: result).run([case])
        self._started = self._started and not own  # if so, the runner has stopped it
        return result

    async def stop(self) -> None:
        """Stops the server."""
        await self._target.stop()


class Adapter:
    """A client or a codec, and its cases one by one."""

    def __init__(self, runner: ClientRunner | CodecRunner) -> None:
        self._runner = runner
        self._stack = contextlib.AsyncExitStack()
        self._run: RunOne | None = None

    async def run(self, case: Case) -> Result:
        """Runs a case. Raises Unreachable or Unstartable."""
        if self._run is None:
            self._run = await self._stack.enter_async_context(self._runner.one_by_one())
        return await self._run(case)

    async def stop(self) -> None:
        """Stops the program."""
        await self._stack.aclose()


class Run:
    """The target, which all items share, its cases, and its event loop."""

    def __init__(self, config: pytest.Config, option: str, value: str) -> None:
        path = config.getoption("--roomwire-baseline")
        self.expected = baseline.read(Path(path)) if path else {}
        self.cases: Sequence[Case]
        self.target: Server | Adapter
        if option == "--roomwire-client":
            options = _options(config, "client", "--exec", value)
            options = replace(options, ready=3 * max(options.timeout, 1.0))
            self.cases = client_cases()
            self.target = Adapter(ClientRunner(launcher(value), load(), options, lambda result: result))
        elif option == "--roomwire-codec":
            process.arguments(value, {})
            options = _options(config, "codec", "--exec", value)
            self.cases = codec_cases()
            self.target = Adapter(CodecRunner(value, load(), options, lambda result: result))
        else:
            self.cases = server_cases()
            self.target = _server(config, option, value)
        check(self.cases, load())
        self.loop = asyncio.new_event_loop()

    def case(self, case: Case) -> Result:
        """Runs one case, and starts the target before the first. Raises Unreachable or Unstartable."""
        return baseline.apply(self.loop.run_until_complete(self.target.run(case)), self.expected)

    def end(self) -> None:
        """Stops the target."""
        with contextlib.suppress(Exception):
            self.loop.run_until_complete(self.target.stop())
        self.loop.close()


def _server(config: pytest.Config, option: str, value: str) -> Server:
    if option == "--roomwire-exec":
        process.arguments(value, {"port": 0, "host": "", "dir": ""})
        options = _options(config, "server", "--exec", value)
        return Server(LaunchedServer(value, options.ready), options)
    options = _options(config, "server", "--connect", value)
    return Server(ServerTarget(*arguments.address(value), options.ready), options)


def _options(config: pytest.Config, role: str, *target: str) -> Options:
    """The options of a run; `target` holds the arguments of `roomwire-check` that name its target."""
    option = config.getoption
    path = option("--roomwire-config")
    said = Config.read(Path(path)) if path else Config()
    options = Options(
        timeout=option("--roomwire-timeout"),
        patience=option("--roomwire-patience") if role == "server" else Options.patience,
        declared=said.features,
        limits=said.limits,
        accounts=said.accounts,
        admins=said.admins,
        seed=option("--roomwire-seed"),
        jobs=1,
    )
    again = ("--config", path) if path else ()
    return replace(options, command=("roomwire-check", role, *target, *again, *arguments.changed(options)))


def make(config: pytest.Config, option: str, value: str) -> "Plugin":
    """Makes the plugin for the target that one of the options names. Raises pytest.UsageError."""
    try:
        return Plugin(Run(config, option, value))
    except UsageError as error:
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
    """All cases of the target's role."""

    run: Run

    def collect(self) -> Iterator[pytest.Item]:
        """One item for each case."""
        for case in self.run.cases:
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
