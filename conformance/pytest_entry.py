"""The plugin that pytest loads wherever this distribution is installed: options only, until one names a target.

So test runs that have nothing to do with Roomwire do not import the suite. See pytest_plugin.py.
"""

from pathlib import Path

import pytest

from conformance.files import obstacle

_TARGETS = ("--roomwire-server", "--roomwire-exec", "--roomwire-client", "--roomwire-codec")

_SUITE = Path(__file__).resolve().with_name("pytest_plugin.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that name and describe the target."""
    group = parser.getgroup("roomwire", "Roomwire conformance suite: --pyargs conformance")
    group.addoption("--roomwire-server", metavar="HOST:PORT", help="a running server")
    group.addoption("--roomwire-exec", metavar="COMMAND", help="start a server: {port}, {host} and {dir} are filled in")
    group.addoption("--roomwire-client", metavar="COMMAND", help="start a client: {host} and {port} are filled in")
    group.addoption("--roomwire-codec", metavar="COMMAND", help="start a codec, a program that answers JSON lines")
    group.addoption("--roomwire-config", metavar="FILE", help="TOML: features, limits and accounts of the target")
    group.addoption("--roomwire-baseline", metavar="FILE", help="TOML: cases that are expected to fail")
    group.addoption("--roomwire-timeout", metavar="S", type=float, default=5.0, help="for each answer (default 5)")
    group.addoption(
        "--roomwire-patience", metavar="S", type=float, default=75.0, help="for the target's time-outs (default 75)"
    )
    group.addoption("--roomwire-seed", metavar="N", type=int, default=1, help="for random inputs (default 1)")


def pytest_configure(config: pytest.Config) -> None:
    """Loads the suite if an option names a target. Raises UsageError if two do."""
    given = [(option, config.getoption(option)) for option in _TARGETS if config.getoption(option)]
    if len(given) > 1:
        raise pytest.UsageError(f"give one of {', '.join(option for option, _ in given)}")
    if given:
        if found := obstacle():
            raise pytest.UsageError(f"roomwire: {found}")
        from conformance import pytest_plugin

        config.pluginmanager.register(pytest_plugin.make(config, *given[0]), "roomwire-suite")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Stops a run that collects the suite without a target. Raises UsageError."""
    if file_path.resolve() == _SUITE and not parent.config.pluginmanager.has_plugin("roomwire-suite"):
        raise pytest.UsageError("give --roomwire-server HOST:PORT, or --roomwire-exec, -client or -codec COMMAND")
