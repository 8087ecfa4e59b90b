"""The commands that inspect the suite or octets and run nothing: list, explain, describe, decode."""

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance.commands import arguments
from conformance.commands.cases import all_cases
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, NOTHING
from conformance.harness.options import UsageError
from conformance.spec.tables import Spec, load
from conformance.wire.annotate import annotate
from conformance.wire.text import escape, stream_lines
from protocol.registry import MAGIC, PREFACE_SIZE


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the four commands to a parser's subparsers."""
    parser = subparsers.add_parser("list", help="list the cases")
    arguments.add_selection(parser)
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.set_defaults(run=_list)
    parser = subparsers.add_parser("explain", help="explain a case or a requirement, with its sentence")
    parser.add_argument("id", metavar="ID")
    parser.set_defaults(run=lambda args: _explain(args.id, all_cases()))
    parser = subparsers.add_parser("describe", help="show the layout of a frame, as SPEC.md has it")
    parser.add_argument("frame", metavar="FRAME")
    parser.set_defaults(run=lambda args: _describe(args.frame))
    parser = subparsers.add_parser("decode", help="decode octets or hexadecimal into frames")
    parser.add_argument("file", metavar="FILE", help="- for standard input")
    parser.add_argument("--annotate", action="store_true", help="show each field with its octets")
    parser.add_argument(
        "--from", dest="sender", choices=("C", "S"), default="", help="the end that sent it (default: guessed)"
    )
    parser.set_defaults(run=lambda args: _decode(args.file, args.annotate, args.sender))


def _list(args: argparse.Namespace) -> int:
    spec = load()
    taken = arguments.selection(args).of(all_cases(), spec)
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
            for case in taken
        ]
        print(json.dumps(rows, indent=1))
    else:
        width = max((len(case.id) for case in taken), default=0)
        for case in taken:
            print(f"{case.id:{width}}  {case.level(spec):8}  {case.requirements[0]:16}  {_first_line(case.summary)}")
    return CONFORMS if taken else NOTHING


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def _explain(id: str, cases: Sequence[Case]) -> int:
    spec = load()
    if id in spec.requirements:
        requirement = spec.requirements[id]
        print(f"{id}, SPEC.md section {requirement.section}, line {requirement.line}, binds: {requirement.binds}")
        print(f"  {requirement.text}")
        about = [case for case in cases if id in case.requirements]
        print(
            "\n".join(["cases:", *(f"  {case.id}: {_first_line(case.summary)}" for case in about)])
            if about
            else "no case"
        )
        return CONFORMS
    case = next((case for case in cases if case.id == id), None)
    if case is None:
        raise UsageError(f"neither a case nor a requirement: {id}")
    print(f"{case.id}\n\n{case.summary}\n")
    for name in case.requirements:
        print(f"{name} (section {spec.requirements[name].section}): {spec.requirements[name].text}")
    if case.tags:
        print(f"\ntags: {', '.join(sorted(case.tags))}")
    print(f"\nagain: roomwire-check {case.role} ... {case.id}")
    print("\n" + "\n".join(_source(case.run)))
    return CONFORMS


def _source(run: Callable[..., object]) -> list[str]:
    """The source of a case's function, and of the values that a table bound in it."""
    values = inspect.getclosurevars(run).nonlocals
    parts = [textwrap.dedent(inspect.getsource(run)).rstrip()]
    parts += [escape(f"with {name} = {value!r}") for name, value in values.items() if not inspect.isfunction(value)]
    for name, value in values.items():
        if inspect.isfunction(value):
            parts += [f"with {name}:", textwrap.dedent(inspect.getsource(value)).rstrip()]
    return parts


def _describe(name: str) -> int:
    spec = load()
    frame = spec.frames.get(name.upper())
    if frame is None:
        raise UsageError(f"no frame {name}; the frames are {', '.join(spec.frames)}")
    section = next(heading.section for heading in spec.document.headings if heading.title == frame.name)
    print(f"{frame.name}  type {frame.type:#06x}, section {section}")
    print(f"  sent by  {' and '.join({'C': 'clients', 'S': 'servers'}[end] for end in frame.sender)}")
    print(f"  request  {frame.request}\n  room     {frame.room}\n  SEQ      {int(frame.seq)}")
    values = {flag: spec.flags[flag].value for flag in frame.flags}
    print(f"  flags    {', '.join(f'{flag} {value:#06x}' for flag, value in values.items()) or 'none'}")
    if frame.extension:
        print(f"  extension {frame.extension}")
    print("  body" if spec.bodies[frame.name] else "  body     no fields")
    for part in spec.bodies[frame.name]:
        print(f"    {part.name:14} {part.type}")
    fields = [row for row in spec.fields.values() if frame.name in row.frames]
    for row in fields:
        print(f"  field    {row.type:#06x} {row.name}{', repeatable' if row.repeatable else ''}: {row.value}")
    if frame.name in spec.examples:
        print("  example")
        print("\n".join(f"    {line}" for line in annotate(spec.examples[frame.name], spec)))
    for requirement in spec.requirements.values():
        if requirement.section == section:
            print(f"  {requirement.id}: {requirement.text}")
    return CONFORMS


def _decode(file: str, annotated: bool, sender: str) -> int:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(str(error)) from None
    octets = _octets(raw)
    spec = load()
    if octets.startswith(MAGIC):
        print(f"preface {octets[:PREFACE_SIZE].hex(' ', -4)}")
        octets = octets[PREFACE_SIZE:]
    ends = [sender] if sender else _senders(octets, spec)
    lines = annotate(octets, spec) if annotated else stream_lines(octets, "S" if ends == ["S"] else "C")
    print("\n".join(escape(line) for line in lines))
    return CONFORMS


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
