"""What pytest loads wherever this distribution is installed: options, and no more until one of them names a target.

So the suite is not imported into test runs that have nothing to do with it. See pytest_plugin.py.
"""

from pathlib import Path

import pytest

_SUITE = Path(__file__).resolve().with_name("pytest_plugin.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The target, and what is known of it."""
    group = parser.getgroup("roomwire", "Roomwire conformance suite: --pyargs conformance")
    group.addoption("--roomwire-server", metavar="HOST:PORT", help="a server that runs already")
    group.addoption("--roomwire-exec", metavar="COMMAND", help="start it: {port}, {host} and {dir} are filled in")
    group.addoption("--roomwire-config", metavar="FILE", help="TOML: features, limits and accounts of the target")
    group.addoption("--roomwire-baseline", metavar="FILE", help="TOML: cases that are expected to fail")
    group.addoption("--roomwire-timeout", metavar="S", type=float, default=5.0, help="for each answer (default 5)")
    group.addoption("--roomwire-patience", metavar="S", type=float, default=75.0, help="for time-outs of the target")
    group.addoption("--roomwire-seed", metavar="N", type=int, default=1, help="for inputs chosen at random")


def pytest_configure(config: pytest.Config) -> None:
    """Loads the suite if a target is named."""
    if config.getoption("--roomwire-server") or config.getoption("--roomwire-exec"):
        from conformance import pytest_plugin

        config.pluginmanager.register(pytest_plugin.make(config), "roomwire-suite")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Says what is missing, where the suite is collected without a target."""
    if file_path.resolve() == _SUITE and not parent.config.pluginmanager.has_plugin("roomwire-suite"):
        raise pytest.UsageError("give --roomwire-server HOST:PORT or --roomwire-exec COMMAND")
