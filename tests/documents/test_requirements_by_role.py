"""Appendix D of SPEC.md lists every requirement, by the role that it binds and by its strength.

`expected` writes the appendix; when the test fails, its right side is what the document should say.
"""

import pytest

from conformance.files import document
from conformance.spec.tables import load
from tests.documents.test_spec_document import slug

SPEC = load()
ROLES = {"D.1 Servers": "server", "D.2 Clients": "client", "D.3 Both": "both"}
STRENGTHS = ("MUST", "SHOULD", "MAY")


def expected(role: str) -> list[str]:
    """The lines of the table of a role: its sections, with links to their requirements."""
    lines = [f"| section | {' | '.join(STRENGTHS)} |", f"|{'---|' * (1 + len(STRENGTHS))}"]
    for heading in SPEC.document.headings:
        found = [r for r in SPEC.requirements.values() if (r.section, r.binds) == (heading.section, role)]
        cells = [
            ", ".join(f"[{r.id}](#{r.id.lower()})" for r in found if r.level.split()[0] == strength)
            for strength in STRENGTHS
        ]
        if found:
            lines.append(f"| {' | '.join((f'[{heading.text}](#{slug(heading.text)})', *cells))} |".replace("|  ", "| "))
    return lines


@pytest.mark.parametrize("heading", ROLES)
def test_list_of_requirements(heading: str) -> None:
    text = document().read_text(encoding="utf-8").partition(f"### {heading}\n")[2].partition("\n### ")[0]
    assert [line for line in text.splitlines() if line.startswith("|")] == expected(ROLES[heading])
