"""Cases for servers. A module has the cases of the sections of SPEC.md that its first line names.

Three modules go across sections, since their cases share a set-up: `restart` kills a server of its own, `retention`
has one that trims, and `delivery` has generated interleavings.
"""

from conformance.harness.case import Case
from conformance.server.cases import (  # noqa: F401  (a module registers its cases when it is imported)
    accounts,
    checks,
    closing,
    delivery,
    draining,
    extensions,
    fields,
    framing,
    grease,
    headers,
    heartbeat,
    hello,
    history,
    join,
    lagging,
    leave,
    limits,
    malformed,
    model,
    names,
    ordering,
    ping,
    preface,
    presence,
    publish,
    quiet,
    repeats,
    requests,
    restart,
    retention,
    stop,
    transport,
    types,
)
from conformance.server.cases.steps import SERVER


def server_cases() -> list[Case]:
    """All cases for servers, in the order of the document."""
    return sorted(SERVER.cases.values(), key=lambda case: [int(part) for part in case.section.split(".")])
