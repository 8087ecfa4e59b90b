"""The library faultlib.c, compiled when it is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.faults.stage.scene import Missing
from benchmarks.settings import compiler

SOURCE = Path(__file__).with_name("faultlib.c")


def build(directory: Path) -> Path:
    """Compile the library in `directory`, once, and return its path. Raises Missing."""
    library = directory / "faultlib.so"
    if library.exists():
        return library
    found = compiler()
    if found is None:
        raise Missing("no C compiler (cc, or $CC, on Linux)")
    command = [found, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run([*command, "-ldl", "-lpthread"], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{found} does not compile {SOURCE.name}: {done.stderr.strip()}")
    return library


def environment(directory: Path, data: Path, **values: object) -> dict[str, str]:
    """The environment of a server whose store is in `data`, with FAULTS_... from `values`. Raises Missing."""
    names = {f"FAULTS_{name.upper()}": str(value) for name, value in values.items()}
    return {"LD_PRELOAD": str(build(directory)), "FAULTS_DIR": str(data.absolute())} | names
