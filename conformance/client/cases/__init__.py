"""Cases for clients, a module a part of SPEC.md; each says by section, name and requirement what it tries."""

from conformance.client.cases import accounts, closing, framing, handshake, publishing, requests, rooms, transport
from conformance.client.cases.steps import CLIENT
from conformance.harness.case import Case

__all__ = ["client_cases"]

_MODULES = (handshake, framing, requests, rooms, publishing, closing, accounts, transport)


def client_cases() -> list[Case]:
    """All of them, in the order of the document."""
    assert all(module.__doc__ for module in _MODULES)
    cases = list(CLIENT.cases.values())
    return sorted(cases, key=lambda case: [int(part) for part in case.section.split(".")])
