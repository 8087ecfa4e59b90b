"""Cases for servers, a module a part of SPEC.md; each says by section, name and requirement what it tries."""

from conformance.harness.case import Case
from conformance.server.cases import (
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
    preface,
    presence,
    publish,
    quiet,
    repeats,
    requests,
    restart,
    retention,
    transport,
    types,
)
from conformance.server.cases.steps import SERVER

__all__ = ["server_cases"]

_MODULES = (
    preface,
    framing,
    headers,
    malformed,
    fields,
    requests,
    types,
    checks,
    hello,
    join,
    leave,
    publish,
    history,
    heartbeat,
    closing,
    draining,
    presence,
    repeats,
    ordering,
    model,
    names,
    extensions,
    grease,
    restart,
    delivery,
    lagging,
    limits,
    quiet,
    retention,
    accounts,
    transport,
)


def server_cases() -> list[Case]:
    """All of them, in the order of the document."""
    order = {module.__name__.rsplit(".", 1)[-1]: at for at, module in enumerate(_MODULES)}
    assert len(order) == len(_MODULES)
    cases = list(SERVER.cases.values())
    return sorted(cases, key=lambda case: [int(part) for part in case.section.split(".")])
