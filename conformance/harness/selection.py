"""Which cases a run takes, by id or glob, requirement, section, level and words."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from conformance.harness.case import Case
from conformance.harness.exit_status import UsageError
from conformance.spec.tables import Spec

_MOST_WORDS = 100  # parentheses and operators included
_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


class SelectionError(UsageError):
    """The selection is malformed or names a requirement or section that does not exist."""


@dataclass(frozen=True)
class Selection:
    """A selection. An empty part selects everything, and a case has to pass all parts."""

    patterns: Sequence[str] = ()
    requirements: Sequence[str] = ()
    sections: Sequence[str] = ()
    levels: Sequence[str] = ()
    words: str = ""

    def of(self, cases: Iterable[Case], spec: Spec) -> list[Case]:
        """The selected cases in their order. Raises SelectionError."""
        unknown = [name for name in self.requirements if name not in spec.requirements]
        if unknown:
            hint = suggestion(unknown[0], spec.requirements)
            raise SelectionError(f"SPEC.md has no requirement {unknown[0]}{hint}")
        sections = {heading.section: heading.title for heading in spec.document.headings if heading.section}
        strange = [name for name in self.sections if name not in sections]
        if strange:
            raise SelectionError(f"SPEC.md has no section {strange[0]}{_section(strange[0], sections)}")
        words = parse_words(self.words) if self.words else None
        return [case for case in cases if self._takes(case, spec, words)]

    def idle(self, cases: Sequence[Case], spec: Spec) -> list[str]:
        """What each name that selects no case is said to be: a slip, which would let a run pass that tries too little.

        A word of `words` behind `not` may be in no case. A name that has cases is idle if the other parts exclude them.
        """
        said: list[str] = []
        for part in ("patterns", "requirements", "sections", "levels"):
            for name in dict.fromkeys(getattr(self, part)):
                named: dict[str, Any] = {part: [name]}
                if not Selection(**named).of(cases, spec):
                    said.append(f"{_NOTHING[part].format(name)}{_hint(name, cases) if part == 'patterns' else ''}")
                elif not replace(self, **named).of(cases, spec):
                    said.append(f"{name} selects no case together with the other options")
        texts = [_text(case) for case in cases]
        return said + [f"-k: no case has the word {word}" for word in _wanted(self.words) if not _in(word, texts)]

    def _takes(self, case: Case, spec: Spec, words: Callable[[str], bool] | None) -> bool:
        return (
            (not self.patterns or any(matches(case.id, pattern) for pattern in self.patterns))
            and (not self.requirements or bool(set(self.requirements) & set(case.requirements)))
            and (not self.sections or any(_within(case.section, section) for section in self.sections))
            and (not self.levels or case.level(spec) in self.levels)
            and (words is None or words(_text(case)))
        )


_NOTHING = {
    "patterns": "no case is named {}",
    "requirements": "no case is about requirement {}",
    "sections": "no case is in section {}",
    "levels": "no case is about a {}",
}


def _text(case: Case) -> str:
    """What the words of a selection are looked for in."""
    return " ".join((case.id, case.summary, *case.requirements, *case.tags)).lower()


def _hint(pattern: str, cases: Iterable[Case]) -> str:
    return f"; use --requirement {pattern}" if pattern.startswith("RW-") else suggestion(pattern, [c.id for c in cases])


def _wanted(text: str) -> list[str]:
    """The words that are not excluded by a `not` right before them."""
    tokens = ["", *(match[1].lower() for match in _TOKEN.finditer(text))]
    return [word for before, word in pairwise(tokens) if before != "not" and word not in ("and", "or", "not", "(", ")")]


def _in(word: str, texts: Iterable[str]) -> bool:
    return any(word in text for text in texts)


def matches(id: str, pattern: str) -> bool:
    """Whether a pattern means an id: it is the id, a glob, or its beginning up to a slash or a part of the section."""
    return fnmatchcase(id, pattern) or id.startswith((pattern.rstrip("/") + "/", pattern + "."))


def suggestion(word: str, known: Iterable[str]) -> str:
    """A question for up to three known names that resemble a word, to append to a message, or ""."""
    return _question(_close(word, {name: name for name in known}))


def _question(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _close(word: str, known: Mapping[str, str]) -> list[str]:
    """The values whose keys resemble a word as a whole, have it in them, or resemble it behind the last slash."""
    names = {name.lower(): value for name, value in known.items()}
    ends = {name.rpartition("/")[2]: value for name, value in names.items()}
    low = word.lower()
    close = difflib.get_close_matches(low, names, 3, 0.75) or [name for name in names if low and low in name][:3]
    if close:
        return [names[name] for name in close]
    return [ends[end] for end in difflib.get_close_matches(low.rpartition("/")[2], ends, 3, 0.75)]


def _section(word: str, titles: Mapping[str, str]) -> str:
    """A question for sections whose number or title resembles a word, or ""."""
    told = {number: f"{number} ({title})" for number, title in titles.items()}
    by_title = {title: told[number] for number, title in titles.items()}
    return _question(_close(word, told if word[:1].isdecimal() else by_title))


def _within(section: str, wanted: str) -> bool:
    return section == wanted or section.startswith(wanted + ".")


def parse_words(text: str) -> Callable[[str], bool]:
    """A test of texts by words joined with and, or, not and parentheses. Raises SelectionError."""
    tokens = [match[1].lower() for match in _TOKEN.finditer(text)]
    if len(tokens) > _MOST_WORDS:
        raise SelectionError(f"-k: expected at most {_MOST_WORDS} words, found {len(tokens)}")
    test, rest = _either(tokens)
    if rest:
        raise SelectionError(f"-k: {rest[0]!r} is in the wrong place in {text!r}")
    return test


_Parsed = tuple[Callable[[str], bool], list[str]]


def _either(tokens: list[str]) -> _Parsed:
    left, rest = _both(tokens)
    while rest and rest[0] == "or":
        right, rest = _both(rest[1:])
        left = _or(left, right)
    return left, rest


def _both(tokens: list[str]) -> _Parsed:
    left, rest = _one(tokens)
    while rest and rest[0] == "and":
        right, rest = _one(rest[1:])
        left = _and(left, right)
    return left, rest


def _one(tokens: list[str]) -> _Parsed:
    if not tokens or tokens[0] in ("and", "or", ")"):
        raise SelectionError("-k: a word is missing")
    word, rest = tokens[0], tokens[1:]
    if word == "not":
        inner, rest = _one(rest)
        return (lambda text: not inner(text)), rest
    if word == "(":
        inner, rest = _either(rest)
        if not rest or rest[0] != ")":
            raise SelectionError("-k: a parenthesis is not closed")
        return inner, rest[1:]
    return (lambda text: word in text), rest


def _and(left: Callable[[str], bool], right: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: left(text) and right(text)


def _or(left: Callable[[str], bool], right: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: left(text) or right(text)
