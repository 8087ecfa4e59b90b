"""The limits that servers are offered are those of CONTRACT.md, in the ranges of SPEC.md, section 15."""

import ast
import re
import tomllib
from pathlib import Path

from conformance.fuzz.cli import FUZZ_OFFERED
from conformance.fuzz.server.fuzzer import LAGGY, TIGHT
from conformance.harness.config import Config
from conformance.harness.options import DECLARATIONS
from conformance.server.target import OFFERED
from protocol.registry import LIMITS
from tests.support.places import ROOT

_PAGE = (ROOT / "conformance" / "CONTRACT.md").read_text(encoding="utf-8")
_STARTS = {"own_server", "with_limits"}


def _offered_by_cases() -> dict[str, set[int]]:
    """The names that cases offer servers of their own, each with the values that are written in the call."""
    found: dict[str, set[int]] = {}
    for path in (ROOT / "conformance" / "server" / "cases").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _STARTS:
                for keyword in call.keywords:
                    values = found.setdefault(keyword.arg or "", set())
                    if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, int):
                        values.add(keyword.value.value)
    return found


def _rows(heading: str) -> dict[str, str]:
    """The variables of a table of CONTRACT.md, without ROOMWIRE_ and in small letters, with what stands beside them."""
    section = _PAGE.split(heading)[1].split("\n\n")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name.lower(): row[2].strip() for row in rows for name in re.findall(r"`ROOMWIRE_(\w+)`", row[1])}


def test_page_names_all_that_servers_share() -> None:
    rows = _rows("name in capitals, a decimal number in the unit of section 15.")
    assert {name: int(value) for name, value in rows.items()} == dict(OFFERED)


def test_page_names_what_section_15_does_not() -> None:
    offered = _offered_by_cases()
    assert "retention_messages" in offered
    others = {name for name in offered if name and name not in LIMITS}
    assert others == set(_rows("Three names are not in section 15:"))


def test_offers_are_in_their_ranges() -> None:
    offers = [*OFFERED.items(), *FUZZ_OFFERED.items(), *TIGHT.items(), *LAGGY.items()]
    offers += [(name, value) for name, values in _offered_by_cases().items() for value in values]
    wrong = [(n, value) for n, value in offers if n in LIMITS and not LIMITS[n].low <= value <= LIMITS[n].high]
    assert not wrong


def test_example_of_the_file_is_valid(tmp_path: Path) -> None:
    """It has each table and each feature."""
    [example] = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
    path = tmp_path / "server.toml"
    path.write_text(example, encoding="utf-8")
    config = Config.read(path)
    assert config.features == set(DECLARATIONS)
    assert config.limits
    assert set(tomllib.loads(example)) == {"features", "limits", "accounts", "admins"}
    assert all(f"`{name}`" in _PAGE for name in DECLARATIONS)
