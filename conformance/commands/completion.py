"""Completion of cases, requirements, sections and frames in shells, for the script of --print-completion.

An argument says by `complete` what it takes. The script has the names in it, so that completion starts no program.
"""

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import shtab

from conformance.commands.cases import all_cases
from conformance.spec.tables import load

What = Literal["cases", "server_cases", "client_cases", "codec_cases", "requirements", "sections", "subjects", "names"]
"""What an argument takes; `subjects` are what `explain` takes, and `names` what `describe` does."""


def complete(action: argparse.Action, what: What) -> None:
    """Says what an argument takes."""
    action.complete = {"bash": f"_roomwire_check_{what}", "zsh": f"_roomwire_check_{what}"}  # type: ignore[attr-defined]


class PrintCompletion(argparse.Action):
    """The option --print-completion: prints the script of a shell and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(
            option_strings,
            dest,
            choices=("bash", "zsh"),
            default=argparse.SUPPRESS,
            help="print a script that completes commands, options, cases, requirements and frames",
        )

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        """Prints the script."""
        shell = str(rest[1])
        print(shtab.complete(parser, shell, preamble=_functions(shell)))
        parser.exit(0)


def _functions(shell: str) -> str:
    """The functions that the arguments name, one for each value of `What`."""
    body = _BASH if shell == "bash" else _ZSH
    functions = [_FUNCTION.format(what, body.format(" ".join(names))) for what, names in _names().items()]
    for what, parts in _COMPOSED.items():
        functions.append(_FUNCTION.format(what, " ".join(f'_roomwire_check_{part} "$1";' for part in parts)))
    return "\n".join(functions)


_FUNCTION = "_roomwire_check_{}() {{ {} }}"
_BASH = 'compgen -W "{}" -- "$1";'
_ZSH = "local -a names; names=({}); compadd -a names;"
_COMPOSED: dict[What, tuple[What, ...]] = {
    "cases": ("server_cases", "client_cases", "codec_cases"),
    "subjects": ("requirements", "cases"),
}


def _names() -> dict[What, list[str]]:
    spec = load()
    cases = [case.id for case in all_cases()]
    return {
        "server_cases": [id for id in cases if id.startswith("server/")],
        "client_cases": [id for id in cases if id.startswith("client/")],
        "codec_cases": [id for id in cases if id.startswith("codec/")],
        "requirements": list(spec.requirements),
        "sections": [heading.section for heading in spec.document.headings if heading.section],
        "names": [*spec.frames, *spec.codes, *spec.fields, *spec.flags, *spec.limits],
    }
