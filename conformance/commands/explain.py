"""The commands `explain` and `describe`: what SPEC.md and the cases say, found by id, glob, number or words."""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from conformance.commands import arguments
from conformance.commands.cases import all_cases
from conformance.commands.completion import complete
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, UsageError
from conformance.harness.selection import matches, suggestion
from conformance.spec.tables import FrameRow, Requirement, Spec, load
from conformance.wire.annotate import annotate
from conformance.wire.text import escape

_ENDS = {"C": "clients", "S": "servers"}
_CARRIERS = {"E": "ERROR", "V": "EVICTED", "G": "GOAWAY"}


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the two commands to a parser's subparsers."""
    parser = subparsers.add_parser("explain", help="explain a case, a requirement or a section, with its sentences")
    complete(
        parser.add_argument(
            "subject", metavar="SUBJECT", nargs="+", help="id, glob, start of an id, number of a section, or words"
        ),
        "subjects",
    )
    parser.add_argument("--source", action="store_true", help="also print the Python of a case")
    parser.set_defaults(run=lambda args: _explain(args.subject, all_cases(), source=args.source))
    parser = subparsers.add_parser("describe", help="show the layout of a frame, as SPEC.md has it")
    complete(
        parser.add_argument(
            "name",
            metavar="NAME",
            nargs="*",
            help="frame, code, extension field, flag or limit, by name, glob, number or words (default: all frames)",
        ),
        "names",
    )
    parser.set_defaults(run=lambda args: _describe(args.name))


def _explain(subjects: Sequence[str], cases: Sequence[Case], *, source: bool) -> int:
    spec = load()
    if len(subjects) == 1 and _tell_section(subjects[0], cases, spec):
        return CONFORMS
    found = [_meant(subject, cases, spec, parts=len(subjects) == 1) for subject in subjects]
    if not all(found):  # words of a sentence, not ids
        found = [_with_words(" ".join(subjects), cases, spec)]
    taken = [item for items in found for item in items]
    if not taken:
        known = (*spec.requirements, *(case.id for case in cases))
        hint = suggestion(subjects[0], known)
        raise UsageError(f"no case, requirement or section is about {' '.join(subjects)}{hint}")
    if len(taken) == 1 and isinstance(taken[0], Case):
        _tell_case(taken[0], spec)
        if source:
            print("\n" + "\n".join(_source(taken[0].run)))
    elif len(taken) == 1 and isinstance(taken[0], Requirement):
        _tell_requirement(taken[0], cases)
    else:
        for item in dict.fromkeys(taken):
            text = item.text if isinstance(item, Requirement) else item.summary.splitlines()[0]
            print(f"{item.id}  {text}")
    return CONFORMS


def _tell_section(section: str, cases: Sequence[Case], spec: Spec) -> bool:
    """Tells what a section names that has no requirements and no cases of its own; False for anything else."""
    heading = next((heading for heading in spec.document.headings if heading.section == section), None)
    items: list[Case | Requirement] = [*spec.requirements.values(), *cases]
    if heading is None or any(_within(item, section) for item in items):
        return False
    named = spec.named_in(section)
    about = "it explains these" if named else "it names none either"
    print(f"SPEC.md section {heading.text}, line {heading.line}, has no requirement and no case of its own; {about}")
    for requirement in named:
        print(f"{requirement.id}  {requirement.text}")
    return True


def _within(item: Case | Requirement, section: str) -> bool:
    return item.section == section or item.section.startswith(f"{section}.")


def _meant(subject: str, cases: Sequence[Case], spec: Spec, *, parts: bool) -> list[Case | Requirement]:
    """What an id, the number of a section, a glob or the start of an id means; with `parts` a part of one, too."""
    upper = subject.upper()
    for id in (upper, f"RW-{upper}"):
        if id in spec.requirements:
            return [spec.requirements[id]]
    items: list[Case | Requirement] = [*spec.requirements.values(), *cases]
    tries: list[Callable[[Case | Requirement], bool]] = [
        lambda item: item.id == subject,
        lambda item: item.section == subject,
        lambda item: _within(item, subject),
        lambda item: matches(item.id, subject) or fnmatchcase(item.id, upper),
        lambda item: parts and (f"/{subject}" in item.id or item.id.startswith((f"{upper}-", f"RW-{upper}-"))),
    ]
    for fits in tries:
        found = [item for item in items if fits(item)]
        if found:
            return found
    return []


def _with_words(text: str, cases: Sequence[Case], spec: Spec) -> list[Case | Requirement]:
    """The requirements and cases that have all words in their ids or texts. A slash separates words, too."""
    words = text.lower().replace("/", " ").split()
    found: list[Case | Requirement] = []
    items: list[Case | Requirement] = [*spec.requirements.values(), *cases]
    for item in items:
        said = f"{item.id} {item.text if isinstance(item, Requirement) else item.summary}".lower()
        if all(word in said for word in words):
            found.append(item)
    return found


def _tell_requirement(requirement: Requirement, cases: Sequence[Case]) -> None:
    place = f"SPEC.md section {requirement.section}, line {requirement.line}"
    print(f"{requirement.id}, {place}, binds: {requirement.binds}")
    print(f"  {requirement.text}")
    about = [case for case in cases if requirement.id in case.requirements]
    lines = [f"  {case.id}: {case.summary.splitlines()[0]}" for case in about]
    print("\n".join(["cases:", *lines]) if about else "no case")


def _tell_case(case: Case, spec: Spec) -> None:
    print(f"{case.id}\n\n{case.summary}\n")
    for name in case.requirements:
        print(f"{name} (section {spec.requirements[name].section}): {spec.requirements[name].text}")
    if case.tags:
        print(f"\ntags: {', '.join(sorted(case.tags))}")
    print(f"\nagain: roomwire-check {case.role} ... {case.id}")


def _source(run: Callable[..., object]) -> list[str]:
    """The source of a case's function, and of the values that a table bound in it."""
    values = inspect.getclosurevars(run).nonlocals
    parts = [textwrap.dedent(inspect.getsource(run)).rstrip()]
    parts += [escape(f"with {name} = {value!r}") for name, value in values.items() if not inspect.isfunction(value)]
    for name, value in values.items():
        if inspect.isfunction(value):
            parts += [f"with {name}:", textwrap.dedent(inspect.getsource(value)).rstrip()]
    return parts


def _describe(names: Sequence[str]) -> int:
    spec = load()
    known = _lines(spec)
    if not names:
        print("\n".join(known[frame, row.type] for frame, row in spec.frames.items()))
        return CONFORMS
    found = [_named(name, known, parts=len(names) == 1) for name in names]
    if not all(found):
        words = " ".join(names).lower().split()
        found = [[key for key, line in known.items() if all(word in line.lower() for word in words)]]
    taken = list(dict.fromkeys(key for keys in found for key in keys))
    if not taken:
        hint = suggestion(names[0], [name for name, _ in known])
        raise UsageError(f"no frame {' '.join(names)}{hint}; the frames are {', '.join(spec.frames)}")
    frames = [frame for frame in spec.frames.values() if (frame.name, frame.type) in taken]
    if len(frames) == 1:  # one frame is told in full, and the others of its name or number after it
        _tell_frame(frames[0], spec)
        taken.remove((frames[0].name, frames[0].type))
    print("\n".join(known[key] for key in taken), end="\n" if taken else "")
    return CONFORMS


def _lines(spec: Spec) -> dict[tuple[str, int], str]:
    """A line for each frame, code, extension field, flag and limit, by name and number (of a limit, -1)."""
    lines = {}
    for frame in spec.frames.values():
        ends = " and ".join(_ENDS[end] for end in frame.sender)
        lines[frame.name, frame.type] = f"{frame.name:14} frame {frame.type:#06x}, sent by {ends}"
    for code in spec.codes.values():
        carriers = "".join(f", {_CARRIERS[letter]}" for letter in code.carriers)
        retry = ", RETRY" if code.retry else ""
        lines[code.name, code.number] = f"{code.name:14} code {code.number}{carriers}{retry}: {code.meaning}"
    for field in spec.fields.values():
        line = f"{field.name:14} field {field.type:#06x} of {', '.join(field.frames)}: {field.value}"
        lines[field.name, field.type] = line
    for flag in spec.flags.values():
        lines[flag.name, flag.value] = f"{flag.name:14} flag {flag.value:#06x} of {', '.join(flag.frames) or 'none'}"
    for limit in spec.limits.values():
        values = f"{limit.default} {limit.unit}, {limit.low} to {limit.high}"
        lines[limit.name, -1] = f"{limit.name:14} limit {values}"
    return lines


def _named(name: str, known: dict[tuple[str, int], str], *, parts: bool) -> list[tuple[str, int]]:
    """The keys that a name, a number or a glob means; with `parts` else those that have the text in them."""
    low = name.lower()
    try:
        number = int(name, 0)
    except ValueError:
        number = -2
    tries: list[Callable[[tuple[str, int]], bool]] = [
        lambda key: key[0].lower() == low or key[1] == number,
        lambda key: fnmatchcase(key[0].lower(), low),
        lambda key: parts and low in key[0].lower(),
    ]
    for fits in tries:
        found = [key for key in known if fits(key)]
        if found:
            return found
    return []


def _tell_frame(frame: FrameRow, spec: Spec) -> None:
    section = next(heading.section for heading in spec.document.headings if heading.title == frame.name)
    print(f"{frame.name}  type {frame.type:#06x}, section {section}")
    print(f"  sent by  {' and '.join(_ENDS[end] for end in frame.sender)}")
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
