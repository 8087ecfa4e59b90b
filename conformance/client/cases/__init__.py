"""Cases for clients. A module has the cases of the sections of SPEC.md that its first line names."""

from conformance.client.cases import (  # noqa: F401  (a module registers its cases when it is imported)
    accounts,
    checks,
    closing,
    draining,
    errors,
    fields,
    framing,
    grease,
    heartbeat,
    hello,
    history,
    join,
    lagging,
    leave,
    names,
    ordering,
    ping,
    preface,
    presence,
    publish,
    reconnect,
    recovery,
    repeats,
    requests,
    stream,
    transport,
    types,
)
from conformance.client.cases.steps import CLIENT
from conformance.harness.case import Case


def client_cases() -> list[Case]:
    """All cases for clients, in the order of the document."""
    return sorted(CLIENT.cases.values(), key=lambda case: [int(part) for part in case.section.split(".")])
