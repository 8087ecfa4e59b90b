"""The commands `list` and `decode`, which run nothing."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.commands import arguments
from conformance.commands.cases import all_cases
from conformance.commands.run import taken
from conformance.harness.exit_status import CONFORMS, NOTHING, UsageError
from conformance.spec.tables import Spec, load
from conformance.wire.annotate import annotate
from conformance.wire.text import escape, stream_lines
from protocol.registry import MAGIC, PREFACE_SIZE

_HEX = re.compile(r"[0-9A-Fa-f\s]+")


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the two commands to a parser's subparsers."""
    parser = subparsers.add_parser("list", help="list the cases")
    arguments.add_selection(parser)
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.set_defaults(run=_list)
    parser = subparsers.add_parser("decode", help="decode octets or hexadecimal into frames")
    parser.add_argument("octets", metavar="FILE|HEX", nargs="+", help="file or hexadecimal, - for standard input")
    parser.add_argument("--annotate", action="store_true", help="show each field with its octets")
    parser.add_argument(
        "--from", dest="sender", choices=("C", "S"), default="", help="the end that sent it (default: guessed)"
    )
    parser.set_defaults(run=lambda args: _decode(args.octets, args.annotate, args.sender))


def _list(args: argparse.Namespace) -> int:
    spec = load()
    selected = taken(arguments.selection(args), all_cases())
    if args.format == "json":
        rows = [
            {
                "id": case.id,
                "section": case.section,
                "level": case.level(spec),
                "requirements": case.requirements,
                "tags": sorted(case.tags),
                "summary": case.summary,
            }
            for case in selected
        ]
        print(json.dumps(rows, indent=1))
    else:
        width = max((len(case.id) for case in selected), default=0)
        for case in selected:
            print(f"{case.id:{width}}  {case.level(spec):8}  {case.requirements[0]:16}  {_first_line(case.summary)}")
    return CONFORMS if selected else NOTHING


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def _decode(words: Sequence[str], annotated: bool, sender: str) -> int:
    octets = _octets(_read(words))
    spec = load()
    if octets.startswith(MAGIC):
        print(f"preface {octets[:PREFACE_SIZE].hex(' ', -4)}")
        octets = octets[PREFACE_SIZE:]
    ends = [sender] if sender else _senders(octets, spec)
    lines = annotate(octets, spec) if annotated else stream_lines(octets, "S" if ends == ["S"] else "C")
    print("\n".join(escape(line) for line in lines))
    return CONFORMS


def _read(words: Sequence[str]) -> bytes:
    """What is to be decoded: standard input for -, else a file if there is one, else the words. Raises UsageError."""
    text = " ".join(words)
    path = Path(text)
    try:
        if text == "-":
            return sys.stdin.buffer.read()
        if not _HEX.fullmatch(text) or path.exists():
            return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"neither hexadecimal nor a file: {error}") from None
    if len("".join(text.split())) % 2:
        raise UsageError("an odd number of hexadecimal digits")
    return text.encode("ascii")


def _octets(raw: bytes) -> bytes:
    """The octets in a file: hexadecimal with white space and # comments, or the octets themselves."""
    try:
        text = re.sub(r"#.*", "", raw.decode("ascii"))
        return bytes.fromhex("".join(text.split()))
    except ValueError:
        return raw


def _senders(octets: bytes, spec: Spec) -> list[str]:
    """The ends that may have sent the first frame."""
    kind = int.from_bytes(octets[4:6], "big")
    return next((list(row.sender) for row in spec.frames.values() if row.type == kind), ["C"])
