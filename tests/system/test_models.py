"""The promise of SPEC.md as models in Promela, searched exhaustively by spin: each rule is needed, and all suffice.

A model in tests/system/models/ has each rule in an `#ifdef` of its requirement id, and its claims as flags that stand
first in the assertions. Without a rule, the claim beside it in the table must have a counterexample. So these tests
fail if the model does not need a rule, or if nothing can break a claim.
"""

import re
import subprocess
from pathlib import Path

import pytest

from conformance.spec.tables import load
from tests.support.tools import needs

MODELS = Path(__file__).parent / "models"

BROKEN_CLAIMS = {
    "publish": {
        "RW-PROMISE-1": "acknowledged_stays",  # ACK before it is durable, then a crash
        "RW-PROMISE-2": "acknowledged_stays",  # DURABLE is set, and a crash truncates the log
        "RW-PROMISE-3": "prefix",  # a batch becomes durable before the one in front of it
        "RW-PROMISE-4": "failed_is_absent",  # appended, and answered with ERROR
        "RW-PROMISE-5": "once",  # repeated with a new id
        "RW-PROMISE-6": "failed_is_absent",  # "failed" is reported while a copy may still be read
        "RW-PROMISE-7": "failed_is_absent",  # ERROR after a failed flush, which had reached the disk
        "RW-PROMISE-8": "in_order",  # sequenced in another order than sent
        "RW-DEDUPE-1": "once",  # a repeat is appended
        "RW-DEDUPE-3": "once",  # the index of ids is lost in a crash
        "RW-DEDUPE-4": "once",  # a repeat is not looked up among messages that are not yet durable
        "RW-DEDUPE-5": "acknowledged_stays",  # a repeat is answered before the first copy is durable
        "RW-DEDUPE-6": "once",  # an id is forgotten early
        "RW-ID-2": "once",  # an id that was forgotten is accepted
        "RW-ID-4": "once",  # the clock steps back in a crash: a forgotten id is accepted again
        "RW-ORDER-1": "in_order",  # a publish sent after a refused one is accepted
        "RW-ORDER-2": "in_order",  # each refused publish is repeated by itself
        "RW-ORDER-3": "in_order",  # a new publish is sent before the unanswered ones
    },
    "deliver": {
        "RW-MODEL-1": "unbroken",  # a seq is left out
        "RW-MODEL-2": "unbroken",  # two messages change places
        "RW-MODEL-4": "one_order",  # a log that lost messages keeps its epoch
        "RW-MODEL-5": "no_false_gap",  # a durable log changes its epoch
        "RW-MODEL-6": "complete",  # the epoch changes, and the member is not told
        "RW-MODEL-9": "one_order",  # the head falls when all messages are trimmed
        "RW-PROMISE-1": "one_order",  # delivered before it is durable
        "RW-PROMISE-9": "complete",  # a message is left out for a slow reader
        "RW-PROMISE-10": "no_silent_gap",  # the client does not report the gap
        "RW-CURSOR-1": "all_retained",  # want = since + 1 in any epoch
        "RW-CURSOR-2": "unbroken",  # only new messages are sent
        "RW-CURSOR-3": "unbroken",  # a publish between JOINED and the attachment
        "RW-CURSOR-4": "unbroken",  # the client keeps its old cursor
        "RW-CURSOR-5": "joined_first",  # attached when JOIN is read
        "RW-LAG-3": "unbroken",  # trimmed messages are skipped
        "RW-LAG-4": "complete",  # an evicted member stays away
        "RW-LAG-7": "bounded",  # a slow reader keeps messages from being trimmed
        "RW-RECOVER-1": "all_retained",  # the client joins again without its cursor
    },
    "ack": {
        "RW-PROMISE-11": "ack_first",  # the echo does not wait for its ACK
        "RW-PROMISE-12": "never_stuck",  # two rooms wait for each other
        "RW-REQUEST-2": "never_stuck",  # a publish is not answered
        "RW-REQUEST-3": "replies_in_order",  # a reply overtakes another
        "RW-HEARTBEAT-4": "never_stuck",  # a client that writes does not read
    },
}

needs_spin = needs("spin", "cc")


def search(directory: Path, model: str, rule: str | None = None, claim: str | None = None) -> str:
    """The output of spin's verifier for a model, without `rule`; only a breach of `claim` counts, or of any if None."""
    text = (MODELS / f"{model}.pml").read_text(encoding="utf-8")
    if claim is not None:
        assert f"hidden byte {claim};" in text
        text = re.sub(rf"hidden byte (?!{claim};)(\w+);", r"hidden byte \1 = 1;", text)
    (directory / "model.pml").write_text(text, encoding="utf-8")
    without = [] if rule is None else [f"-D{rule.replace('-', '_')}"]
    for command in (
        ["spin", *without, "-a", "model.pml"],
        ["cc", "-w", "-O0" if rule else "-O1", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"],
        ["./pan", "-m100000", "-w20"],
    ):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "search depth too small" not in done.stdout
    assert "out of memory" not in done.stdout
    return done.stdout


@needs_spin
@pytest.mark.parametrize("model", BROKEN_CLAIMS)
def test_all_rules_together_keep_every_claim(model: str, tmp_path: Path) -> None:
    output = search(tmp_path, model)
    assert "errors: 0" in output, output
    # Every statement is reached, except that nothing is a repeat on the first connection.
    assert set(re.findall(r'state \d+, "(.*)"', output)) <= {"-end-", "replies!4,message,seq,1"}, output


@needs_spin
@pytest.mark.parametrize(
    ("model", "rule", "claim"),
    [(model, rule, claim) for model, rules in BROKEN_CLAIMS.items() for rule, claim in rules.items()],
)
def test_claim_breaks_without_its_rule(model: str, rule: str, claim: str, tmp_path: Path) -> None:
    output = search(tmp_path, model, rule, claim)
    found = re.search(rf"assertion violated \(+{claim}\|\|", output)
    assert found, f"{model}.pml keeps {claim} without {rule}: the model does not need the rule\n{output}"


@pytest.mark.parametrize("model", BROKEN_CLAIMS)
def test_table_lists_all_rules_and_claims_of_a_model(model: str) -> None:
    text = (MODELS / f"{model}.pml").read_text(encoding="utf-8")
    ids = {name.replace("_", "-") for name in re.findall(r"^#if(?:n?def) (RW_\w+)", text, re.MULTILINE)}
    assert ids == set(BROKEN_CLAIMS[model])
    assert set(re.findall(r"^hidden byte (\w+);", text, re.MULTILINE)) == set(BROKEN_CLAIMS[model].values())


def test_every_rule_of_the_promise_is_in_a_model() -> None:
    known = set(load().requirements)
    modelled = {rule for rules in BROKEN_CLAIMS.values() for rule in rules}
    assert modelled <= known
    assert {id for id in known if id.startswith("RW-PROMISE-")} <= modelled
