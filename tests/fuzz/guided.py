"""Fuzzing guided by coverage, with atheris (libFuzzer): the decoder, a ServerConnection, the whole server.

    pip install -e '.[guided]'
    python -m tests.fuzz.guided decoder [--corpus DIR] [libFuzzer's options: -max_total_time=300 -seed=1 ...]

The targets are in `tests.fuzz.guided_targets`. A failure is printed with its traceback, and its octets are written to a
file `crash-...`, which `python -m tests.fuzz.guided TARGET crash-...` runs again.
"""

import argparse
import hashlib
import importlib
import sys
import tempfile
from pathlib import Path

TARGETS = ("decoder", "connection", "server")


def main() -> None:
    """Runs one target until it fails, or until libFuzzer stops as its options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--corpus", type=Path, help="where to keep inputs (default: nowhere)")
    args, options = parser.parse_known_args()
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("needs atheris: pip install -e '.[guided]', on a Python and a system that have wheels of it")
    with atheris.instrument_imports(include=["protocol", "reference_server"]):
        targets = importlib.import_module("tests.fuzz.guided_targets")
    with tempfile.TemporaryDirectory() as directory:
        corpus = args.corpus or Path(directory)
        corpus.mkdir(parents=True, exist_ok=True)
        for octets in targets.seeds(args.target):
            (corpus / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)
        files = [option for option in options if not option.startswith("-")]
        where = [] if files else [str(corpus)]
        atheris.Setup([sys.argv[0], "-max_len=4096", *options, *where], targets.TARGETS[args.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
