"""The state machines of Roomwire/1 as data, row for row as in SPEC.md, sections 8.1, 8.2, 9 and 10.5.

`ClientConnection` and `ServerConnection` change their state by these tables alone. Tests compare the tables with those
in SPEC.md, and the reference client with PUBLISH.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from protocol.errors import LocalProtocolError
from protocol.frames import ESTABLISHED, RULES
from protocol.registry import Sender


class Transition(NamedTuple):
    """In `state`, `event` leads to `next`. `action` is for people. The state "any" stands for every state."""

    state: str
    event: str
    action: str
    next: str


CLIENT: tuple[Transition, ...] = (
    Transition("CONNECTING", "transport up", "send preface", "PREFACE"),
    Transition("CONNECTING", "close", "close", "CLOSED"),
    Transition("CONNECTING", "time-out", "close", "CLOSED"),
    Transition("PREFACE", "preface", "send HELLO", "HELLO_SENT"),
    Transition("PREFACE", "wrong preface", "close", "CLOSED"),
    Transition("PREFACE", "time-out", "close", "CLOSED"),
    Transition("PREFACE", "close", "close", "CLOSED"),
    Transition("HELLO_SENT", "AUTH", "send AUTH", "HELLO_SENT"),
    Transition("HELLO_SENT", "WELCOME", "", "OPEN"),
    Transition("HELLO_SENT", "ERROR", "", "CLOSING"),
    Transition("HELLO_SENT", "GOAWAY", "send GOAWAY(NONE)", "CLOSING"),
    Transition("HELLO_SENT", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("HELLO_SENT", "time-out", "send GOAWAY(TIMEOUT)", "CLOSING"),
    Transition("HELLO_SENT", "close", "send GOAWAY(NONE)", "CLOSING"),
    Transition("OPEN", "frame", "", "OPEN"),
    Transition("OPEN", "GOAWAY(DRAINING)", "", "DRAINING"),
    Transition("OPEN", "GOAWAY", "send GOAWAY(NONE)", "CLOSING"),
    Transition("OPEN", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("OPEN", "time-out", "send GOAWAY(TIMEOUT)", "CLOSING"),
    Transition("OPEN", "close", "send GOAWAY(NONE)", "CLOSING"),
    Transition("DRAINING", "frame", "", "DRAINING"),
    Transition("DRAINING", "all replied", "send GOAWAY(NONE)", "CLOSING"),
    Transition("DRAINING", "GOAWAY", "send GOAWAY(NONE)", "CLOSING"),
    Transition("DRAINING", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("DRAINING", "time-out", "send GOAWAY(TIMEOUT)", "CLOSING"),
    Transition("DRAINING", "close", "send GOAWAY(NONE)", "CLOSING"),
    Transition("CLOSING", "frame", "", "CLOSING"),
    Transition("CLOSING", "GOAWAY", "close", "CLOSED"),
    Transition("CLOSING", "time-out", "close", "CLOSED"),
    Transition("any", "end of stream", "close", "CLOSED"),
)

SERVER: tuple[Transition, ...] = (
    Transition("WAIT_PREFACE", "preface", "send preface", "WAIT_HELLO"),
    Transition("WAIT_PREFACE", "no common version", "send preface(0)", "CLOSED"),
    Transition("WAIT_PREFACE", "wrong preface", "close", "CLOSED"),
    Transition("WAIT_PREFACE", "time-out", "close", "CLOSED"),
    Transition("WAIT_PREFACE", "close", "close", "CLOSED"),
    Transition("WAIT_HELLO", "HELLO, complete", "send WELCOME", "OPEN"),
    Transition("WAIT_HELLO", "HELLO, needs more", "send AUTH", "AUTHENTICATING"),
    Transition("WAIT_HELLO", "refused", "send ERROR, GOAWAY(code)", "CLOSING"),
    Transition("WAIT_HELLO", "GOAWAY", "send GOAWAY(NONE)", "CLOSING"),
    Transition("WAIT_HELLO", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("WAIT_HELLO", "time-out", "send GOAWAY(TIMEOUT)", "CLOSING"),
    Transition("WAIT_HELLO", "close", "send GOAWAY(code)", "CLOSING"),
    Transition("AUTHENTICATING", "AUTH, complete", "send WELCOME", "OPEN"),
    Transition("AUTHENTICATING", "AUTH, needs more", "send AUTH", "AUTHENTICATING"),
    Transition("AUTHENTICATING", "refused", "send ERROR, GOAWAY(code)", "CLOSING"),
    Transition("AUTHENTICATING", "GOAWAY", "send GOAWAY(NONE)", "CLOSING"),
    Transition("AUTHENTICATING", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("AUTHENTICATING", "time-out", "send GOAWAY(TIMEOUT)", "CLOSING"),
    Transition("AUTHENTICATING", "close", "send GOAWAY(code)", "CLOSING"),
    Transition("OPEN", "frame", "", "OPEN"),
    Transition("OPEN", "drain", "send GOAWAY(DRAINING)", "DRAINING"),
    Transition("OPEN", "GOAWAY", "send replies, GOAWAY(NONE)", "CLOSING"),
    Transition("OPEN", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("OPEN", "time-out", "send GOAWAY(code)", "CLOSING"),
    Transition("OPEN", "close", "send GOAWAY(code)", "CLOSING"),
    Transition("DRAINING", "frame", "", "DRAINING"),
    Transition("DRAINING", "GOAWAY", "send replies, GOAWAY(SHUTDOWN)", "CLOSING"),
    Transition("DRAINING", "drained", "send replies, GOAWAY(SHUTDOWN)", "CLOSING"),
    Transition("DRAINING", "fatal error", "send GOAWAY(code)", "CLOSING"),
    Transition("DRAINING", "time-out", "send GOAWAY(code)", "CLOSING"),
    Transition("DRAINING", "close", "send GOAWAY(code)", "CLOSING"),
    Transition("CLOSING", "frame", "", "CLOSING"),
    Transition("CLOSING", "GOAWAY", "close", "CLOSED"),
    Transition("CLOSING", "time-out", "close", "CLOSED"),
    Transition("any", "end of stream", "close", "CLOSED"),
)

MEMBERSHIP: tuple[Transition, ...] = (
    Transition("OUT", "send JOIN", "", "JOINING"),
    Transition("JOINING", "JOINED", "set the cursor", "IN"),
    Transition("JOINING", "ERROR", "", "OUT"),
    Transition("IN", "stream frame", "move the cursor", "IN"),
    Transition("IN", "send LEAVE", "", "LEAVING"),
    Transition("IN", "EVICTED", "", "OUT"),
    Transition("LEAVING", "stream frame", "move the cursor", "LEAVING"),
    Transition("LEAVING", "OK", "", "OUT"),
    Transition("LEAVING", "ERROR(NOT_JOINED)", "", "OUT"),
    Transition("LEAVING", "ERROR", "", "IN"),
    Transition("LEAVING", "EVICTED", "", "OUT"),
    Transition("any", "end of stream", "", "OUT"),
)

PUBLISH: tuple[Transition, ...] = (
    Transition("QUEUED", "turn", "send PUBLISH", "SENT"),
    Transition("QUEUED", "give up", "report failure", "DONE"),
    Transition("SENT", "ACK", "report success", "DONE"),
    Transition("SENT", "MESSAGE with its id", "report success", "DONE"),
    Transition("SENT", "ERROR with RETRY", "", "REFUSED"),
    Transition("SENT", "ERROR after EVICTED", "", "REFUSED"),
    Transition("SENT", "ERROR", "report failure", "DONE"),
    Transition("SENT", "end of connection", "", "UNKNOWN"),
    Transition("SENT", "give up", "report unknown", "DONE"),
    Transition("REFUSED", "turn", "send PUBLISH", "SENT"),
    Transition("REFUSED", "give up", "report failure", "DONE"),
    Transition("UNKNOWN", "turn", "send PUBLISH", "REPEATED"),
    Transition("UNKNOWN", "no repeat", "", "WAITING"),
    Transition("UNKNOWN", "MESSAGE with its id", "report success", "DONE"),
    Transition("UNKNOWN", "give up", "report unknown", "DONE"),
    Transition("REPEATED", "ACK", "report success", "DONE"),
    Transition("REPEATED", "MESSAGE with its id", "report success", "DONE"),
    Transition("REPEATED", "ERROR with RETRY", "", "UNKNOWN"),
    Transition("REPEATED", "ERROR after EVICTED", "", "UNKNOWN"),
    Transition("REPEATED", "ERROR", "", "WAITING"),
    Transition("REPEATED", "end of connection", "", "UNKNOWN"),
    Transition("REPEATED", "give up", "report unknown", "DONE"),
    Transition("WAITING", "MESSAGE with its id", "report success", "DONE"),
    Transition("WAITING", "head reached", "report unknown", "DONE"),
    Transition("WAITING", "end of connection", "", "UNKNOWN"),
    Transition("WAITING", "give up", "report unknown", "DONE"),
)
"""A publish at a client, across connections. `reference_client.session` keeps it without names for the states."""

Machine = Mapping[str, Mapping[str, str]]
"""state -> event -> next state."""


def machine(transitions: Iterable[Transition]) -> Machine:
    """Return the table as nested mappings, with "any" written out for each state."""
    rows = list(transitions)
    states = {row.state for row in rows if row.state != "any"} | {row.next for row in rows}
    table: dict[str, dict[str, str]] = {state: {} for state in states}
    for row in rows:
        for state in states if row.state == "any" else (row.state,):
            table[state][row.event] = row.next
    return table


def advance(table: Machine, state: str, event: str) -> str:
    """Return the state after `event` in `state`. Raises LocalProtocolError if the table has no such row."""
    try:
        return table[state][event]
    except KeyError:
        raise LocalProtocolError(f"{event!r} is not possible in the state {state}") from None


CLIENT_MACHINE = machine(CLIENT)
SERVER_MACHINE = machine(SERVER)
MEMBERSHIP_MACHINE = machine(MEMBERSHIP)


def _receives(sender: Sender, state: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return which of the frames that `sender` sends its peer accepts in `state`, and which are UNEXPECTED there."""
    rules = {type: rule for type, rule in RULES.items() if sender in rule.sender}
    accepted = frozenset(type for type, rule in rules.items() if state in rule.states)
    return accepted, frozenset(rules) - accepted


SERVER_ACCEPTS = {state: _receives("C", state)[0] for state in ("WAIT_HELLO", "AUTHENTICATING")}
"""RW-HELLO-5: the known frames that a server accepts before WELCOME, by state; all others are UNEXPECTED."""

SERVER_REFUSES = {state: _receives("C", state)[1] for state in ESTABLISHED}
"""RW-HELLO-6: the frames of a client that are UNEXPECTED after WELCOME, by state."""

CLIENT_ACCEPTS = _receives("S", "HELLO_SENT")[0]
"""The known frames that a client accepts before WELCOME; all others are UNEXPECTED."""

CLIENT_REFUSES = _receives("S", "OPEN")[1]
"""The frames of a server that are UNEXPECTED after WELCOME."""
