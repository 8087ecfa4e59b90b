"""The cases of all roles."""

from conformance.client.cases import client_cases
from conformance.codec.cases import codec_cases
from conformance.harness.case import Case, check
from conformance.server.cases import server_cases
from conformance.spec.tables import load


def all_cases() -> list[Case]:
    """The cases of servers, clients and codecs. Raises HarnessFault if one does not fit SPEC.md."""
    cases = [*server_cases(), *client_cases(), *codec_cases()]
    check(cases, load())
    return cases
