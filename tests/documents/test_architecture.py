"""The rules of the house: which way imports go, how long modules are, what files may say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
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

# Imports within a package point from right to left only: the places of a package, lowest first. What stands in one
# tuple is beside each other, and imports nothing of it.
LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "reference_server": (
        ("config", "files", "lines", "logs", "streams"), ("accounts",), ("store",), ("core",), ("net",), ("metrics",),
        ("commands",), ("cli",), ("__main__",),
    ),
    "reference_client": (
        ("errors", "events"), ("session", "tls"), ("transport", "room", "event_queue"), ("client",),
        ("adapter", "chat"), ("__main__",),
    ),
    "conformance": (
        ("files",), ("spec",), ("wire",), ("harness",), ("report", "server"), ("client", "codec"), ("fuzz",),
        ("commands",), ("cli", "pytest_plugin"), ("pytest_entry", "skeletons", "__main__"),
    ),
}  # fmt: skip

MOST_LINES = 800
MOST_LINES_OF_A_FUNCTION = 40
MOST_ENTRIES = 16
"""Modules and folders side by side in a folder. Cases, tests, and data have as many as there are subjects."""
NOT_COUNTED = {"__init__.py", "__main__.py", "py.typed", "README.md", "CONTRACT.md"}
MANY_ENTRIES = re.compile(r"conformance/(server|client)/cases|conformance/fuzz/corpus|tests(/\w+)?")

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


@cache
def imports(source: str, module: Path) -> tuple[str, ...]:
    """What `imported` yields, found once for all tests."""
    return tuple(imported(source, module))


def imported(source: str, module: Path) -> Iterator[str]:
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
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and node.args:
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


def place(package: str, module: str) -> str:
    """The folder or module at the top of a package in which a module stands; "" is the package itself."""
    return module.removeprefix(package).removeprefix(".").partition(".")[0]


def upward(package: str, needs: Mapping[str, set[str]]) -> list[str]:
    """Imports within a package that point up, or to what stands beside."""
    height = {name: height for height, layer in enumerate(LAYERS[package]) for name in layer}
    found = []
    for module, others in needs.items():
        here = place(package, module)
        for other in others:
            there = place(package, other)
            if here and there and here != there and height[there] >= height[here]:
                found.append(f"{module} imports {other}")
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_imports_within_a_package_point_down(package: str) -> None:
    modules = {
        ".".join(name.with_suffix("").parts).removesuffix(".__init__"): name
        for name in MODULES
        if name.parts[0] == package
    }
    needs = {
        module: {
            found if found in modules else found.rpartition(".")[0]
            for found in imports(text(name), name)
            if found.startswith(f"{package}.")
        }
        for module, name in modules.items()
    }
    assert {place(package, module) for module in modules} - {""} == {
        name for layer in LAYERS[package] for name in layer
    }
    assert upward(package, needs) == []


def test_imports_that_point_up_are_noticed() -> None:
    assert upward("conformance", {"conformance.wire.log": {"conformance.harness.judge"}})
    assert upward("conformance", {"conformance.codec.runner": {"conformance.client.runner"}})
    assert upward("conformance", {"conformance.harness.judge": {"conformance.wire.log"}}) == []


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Functions and methods of a module with their lengths in lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_modules_are_short() -> None:
    lengths = {str(module): len(text(module).splitlines()) for module in MODULES}
    assert {module: length for module, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks", "examples"])
def test_functions_are_short(folder: str) -> None:
    modules = [module for module in MODULES if module.parts[0] == folder]
    found = {(str(module), *function) for module in modules for function in functions(text(module))}
    assert {each for each in found if each[2] > MOST_LINES_OF_A_FUNCTION} == set()


def continued(sources: Mapping[str, str]) -> list[str]:
    """Classes that are one class in two files: the base stands elsewhere, has no other heir, and is never made."""
    classes: dict[str, str] = {}
    heirs: dict[str, list[str]] = defaultdict(list)
    made: set[str] = set()
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                classes[node.name] = name
                for base in node.bases:
                    heirs[ast.unparse(base).partition("[")[0].rpartition(".")[2]].append(node.name)
            elif isinstance(node, ast.Call):
                made.add(ast.unparse(node.func).rpartition(".")[2])
    return [
        f"{heir} in {classes[heir]} continues {base} of {classes[base]}"
        for base, (heir, *others) in heirs.items()
        if base in classes and not others and classes[heir] != classes[base] and base not in made
    ]


def test_no_class_is_continued_in_another_file() -> None:
    """A limit on length must never decide where a class ends."""
    assert continued({str(module): text(module) for module in MODULES if module.parts[0] in PACKAGES}) == []


def test_continued_classes_are_noticed() -> None:
    base, heir = "class Half:\n    pass", "class Whole(Half):\n    pass"
    assert continued({"a.py": base, "b.py": heir}) == ["Whole in b.py continues Half of a.py"]
    assert continued({"a.py": f"{base}\n\n\n{heir}"}) == []
    assert continued({"a.py": base, "b.py": f"{heir}\n\n\nHalf()"}) == []
    assert continued({"a.py": base, "b.py": f"{heir}\n\n\nclass Other(Half):\n    pass"}) == []


def test_folders_can_be_surveyed() -> None:
    entries: dict[str, set[str]] = defaultdict(set)
    for name in FILES:
        for at in range(len(name.parts)):
            entries["/".join(name.parts[:at])].update({name.parts[at]} - NOT_COUNTED)
    crowded = {folder: len(names) for folder, names in entries.items() if len(names) > MOST_ENTRIES}
    assert {folder: count for folder, count in crowded.items() if folder and not MANY_ENTRIES.fullmatch(folder)} == {}


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


@pytest.mark.parametrize("name", [str(name) for name in FILES if name.suffix == ".md"])
def test_lines_of_documents_are_short(name: str) -> None:
    """At most 100 characters, tables and code apart."""
    prose = re.sub(r"(?ms)^```.*?^```$|^    [^\n]*$|^\|[^\n]*$", "", text(Path(name)))
    assert [line for line in prose.splitlines() if len(line) > 100] == []


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
