"""The rules of the house: which way imports go, how long modules are, what files may say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("protocol", "reference_server", "reference_client", "conformance")
FOLDERS = {*PACKAGES, "tests", "benchmarks", "examples", ".ci"}
DOCUMENTS = ("README.md", "SPEC.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml")
SCRIPTS = ("start.sh", "test.sh", "setup.sh", ".ci/run")

# The protocol has no clock, no chance and no outside: whoever drives it brings these.
IMPURE = set(
    re.findall(
        r"\w+",
        """
        _thread asyncio concurrent datetime fcntl fileinput ftplib getpass glob http io logging mmap
        multiprocessing os pathlib random sched secrets select selectors shelve shutil signal smtplib socket
        socketserver sqlite3 ssl subprocess tempfile threading time urllib uuid webbrowser
        """,
    )
)

# A shared state machine would share its bugs, so the suite takes frames and octets from `protocol`, no more.
FOR_CONFORMANCE = {
    "registry",
    "layout",
    "frames",
    "errors",
    "wire",
    "fields",
    "codec",
    "compiled",
    "names",
    "state",
}  # of state the tables


def tracked() -> list[Path]:
    """Files of the repository, new ones included; where there is no git, all but what tools leave behind."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode == 0:
        names = [Path(name) for name in listing.stdout.decode().split("\0") if name]
    else:
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        skipped = {
            ".git",
            ".venv",
            "__pycache__",
            ".hypothesis",
            ".mypy_cache",
            ".pytest_cache",
            ".ruff_cache",
        }
        names = [name for name in names if skipped.isdisjoint(name.parts)]
    return [name for name in names if (ROOT / name).is_file()]


def text(name: Path) -> str:
    return (ROOT / name).read_bytes().decode("utf-8", "replace")


FILES = tracked()
MODULES = [name for name in FILES if name.suffix == ".py"]


def imports(source: str, module: Path) -> Iterator[str]:
    """Dotted names that a module imports, relative ones made absolute, `from a import b` as a.b."""
    package = module.parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.split(".")[-1] in ("import_module", "__import__") and node.args:
                yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "?"


def violations(source: str, module: Path) -> list[str]:
    """The imports of a module that point the wrong way."""
    package = module.parts[0]
    wrong = []
    for name in imports(source, module):
        top, *rest = name.split(".")
        if package == "protocol":
            pure = top in sys.stdlib_module_names and top not in IMPURE
            allowed = pure or top in ("protocol", "construct")
        elif package == "conformance" and top == "protocol":
            allowed = bool(rest) and rest[0] in FOR_CONFORMANCE
        elif top in FOLDERS:
            allowed = top in (package, "protocol")
        else:
            allowed = top in sys.stdlib_module_names or top in requirements()
        if not allowed:
            wrong.append(name)
    return wrong


def requirements() -> set[str]:
    """What pyproject.toml installs with the packages; all of it is imported by its own name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in project["dependencies"]}


def test_imports_go_one_way() -> None:
    modules = [module for module in MODULES if module.parts[0] in PACKAGES]
    wrong = {str(module): violations(text(module), module) for module in modules}
    assert {module: names for module, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol/a.py", "import socket"),
        ("protocol/a.py", "from os import path"),
        ("protocol/a.py", "from time import monotonic"),
        ("protocol/a.py", "import rich"),
        ("protocol/a.py", "import reference_server"),
        ("protocol/a.py", "def f():\n    from asyncio import sleep"),
        ("reference_client/a.py", "from reference_server.store.base import Store"),
        ("reference_client/a.py", "import conformance.harness.case"),
        ("reference_client/a.py", "from tests.protocol.test_names import texts"),
        ("reference_client/a.py", "import notdeclared"),
        ("reference_server/deep/a.py", "from ...reference_client import render"),
        ("reference_server/a.py", "__import__('reference_client')"),
        ("conformance/a.py", "from protocol.connection import ClientConnection"),
        ("conformance/a.py", "from protocol import framing"),
        ("conformance/a.py", "from protocol import *"),
        ("conformance/a.py", "import protocol"),
        ("conformance/a.py", "from importlib import import_module\nimport_module('protocol.server')"),
        ("conformance/a.py", "import importlib\nimportlib.import_module(name)"),
    ],
)
def test_wrong_ways_are_noticed(module: str, source: str) -> None:
    assert violations(source, Path(module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "protocol/a.py",
            "import re\nfrom construct import Struct\nfrom . import names\nfrom .errors import Malformed",
        ),
        (
            "reference_server/a.py",
            "import os\nfrom protocol.server import ServerConnection\nfrom . import store",
        ),
        (
            "conformance/a.py",
            "from protocol import codec\nfrom protocol.frames import Hello\nimport hypothesis",
        ),
    ],
)
def test_right_ways_are_left_alone(module: str, source: str) -> None:
    assert violations(source, Path(module)) == []


def test_no_module_needs_itself() -> None:
    """Within a package too: imports make no circle, those for type checkers alone included."""
    modules = {
        ".".join(name.with_suffix("").parts).removesuffix(".__init__"): name
        for name in tracked()
        if name.parts[0] in (*PACKAGES, "benchmarks") and name.suffix == ".py"
    }
    needs = {
        module: {
            found if found in modules else found.rpartition(".")[0]  # a module, or a name in one
            for found in imports(text(name), name)
        }
        & modules.keys() - {module}
        for module, name in modules.items()
    }
    assert needs["reference_server.core.hub"] >= {"reference_server.core.peer", "reference_server.core.state"}
    while free := [module for module, others in needs.items() if not others & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, f"in a circle, or above one: {sorted(needs)}"


def test_protocol_opens_nothing() -> None:
    for module in MODULES:
        if module.parts[0] == "protocol":
            calls = [node for node in ast.walk(ast.parse(text(module))) if isinstance(node, ast.Call)]
            assert {"open", "input", "print"}.isdisjoint(ast.unparse(call.func) for call in calls), module


def test_modules_are_short() -> None:
    lengths = {str(module): len(text(module).splitlines()) for module in MODULES}
    assert {module: length for module, length in lengths.items() if length > 800} == {}


def test_modules_say_what_they_are_for() -> None:
    assert [str(module) for module in MODULES if not ast.get_docstring(ast.parse(text(module)))] == []


# With brackets, so that these lines are not what they look for.
PLACES = re.compile(
    r"/[w]ork/|/[h]ome/\w|/[U]sers/\w|/[r]oot/|/[t]mp/rw|(?<![\w-])[s]hared/|[p]ypi\.org|[p]ythonhosted"
)


def test_files_know_no_place() -> None:
    """Nothing depends on the machine where it was written, or on a particular package registry."""
    found = {str(name): PLACES.findall(text(name)) for name in FILES}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize("name", [*DOCUMENTS, *SCRIPTS])
def test_house_is_complete(name: str) -> None:
    assert Path(name) in FILES


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_run(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111


def test_house_has_these_rooms_only() -> None:
    rooms = {name.parts[0] for name in FILES if len(name.parts) > 1}
    assert rooms <= FOLDERS
    assert rooms >= {*PACKAGES, "tests", ".ci"}


def test_tests_are_no_packages() -> None:
    """A package among them would shadow a real one; see importlib mode in pyproject.toml."""
    assert [str(name) for name in MODULES if name.parts[0] == "tests" and name.name == "__init__.py"] == []
