"""Proof holds at once, a complaint that nothing bears out after the second, silence after three."""

from __future__ import annotations

import re

from nomoat.server.conduct.rules import Judgement, Strike, StrikeKind, judge
from nomoat.server.rounds.machines.evidence import RoundEvidence, SessionEvidence


def session(
    wrong: dict[str, str] | None = None,
    complaints: dict[str, tuple[str, ...]] | None = None,
    failed: bool = False,
) -> RoundEvidence:
    """A session of eight, two of whom may be corrupt."""
    return RoundEvidence((SessionEvidence(wrong or {}, complaints or {}, 2, failed),))


def play(*rounds: RoundEvidence) -> Judgement:
    """The judgement of the last of some rounds, with the strikes of those before."""
    past: list[Strike] = []
    judged = Judgement()
    for number, evidence in enumerate(rounds, 1):
        judged = judge(number, evidence, past)
        past += judged.strikes
    return judged


def test_what_cost_a_round_is_held_at_once_and_what_did_not_the_second_time() -> None:
    lied = {"eve": "dealt bad shares"}
    assert play(session(lied, failed=True)).held == {"eve": "dealt bad shares (round 1)"}
    assert play(session(lied)).held == {}
    assert play(session(lied), session(), session(lied)).held == {
        "eve": "dealt bad shares (round 3)"
    }


def test_whoever_is_at_odds_with_more_than_can_be_corrupt_is_the_one_that_lies() -> None:
    accused = play(session(complaints={"a": ("eve",), "b": ("eve",), "c": ("eve",)}))
    assert accused.held == {"eve": "3 volunteers complained about its shares (round 1)"}
    accuser = play(session(complaints={"eve": ("a", "b", "c")}))
    assert accuser.held == {"eve": "complained about the shares of 3 volunteers (round 1)"}
    both = play(session(complaints={"eve": ("a", "b"), "c": ("eve",)}))
    assert list(both.held) == ["eve"]


def test_two_complainers_about_one_are_no_proof_against_it() -> None:
    framed = session(complaints={"a": ("bob",), "b": ("bob",)})
    assert play(framed).held == {}
    assert list(play(framed, framed).held) == ["a", "b"]


def test_complaints_in_two_exchanges_of_a_round_count_once() -> None:
    once = SessionEvidence({}, {"a": ("bob",)}, 2)
    assert play(RoundEvidence((once, once))).held == {}


def test_accusers_whom_a_later_round_bears_out_are_let_in_again() -> None:
    rounds = [session(complaints={name: ("eve",)}) for name in ("a", "a", "b", "c")]
    assert list(play(*rounds[:2]).held) == ["a"]
    judged = play(*rounds)
    assert list(judged.held) == ["eve"]
    assert set(judged.released) == {"a", "b", "c"}


def test_complaints_about_whom_proof_was_found_of_are_not_counted() -> None:
    caught = session({"eve": "revealed nonsense"}, {"a": ("eve",)})
    assert play(caught, session(complaints={"a": ("eve",)})).held == {}


def test_silence_is_held_against_a_volunteer_after_three_rounds() -> None:
    silent = RoundEvidence(silent=frozenset({"mute"}))
    assert play(silent, silent).held == {}
    assert list(play(silent, silent, silent).held) == ["mute"]


def test_a_strike_says_what_it_is_for() -> None:
    assert str(Strike(4, StrikeKind.COMPLAINT, "a", "b")) == "complained about b's shares (round 4)"
    assert str(Strike(4, StrikeKind.SILENCE, "a")) == "did not answer (round 4)"


def proven(name: str, number: int) -> RoundEvidence:
    """A session with evidence that anybody can recompute."""
    lie = f"its update is {number} times the bound"
    return RoundEvidence((SessionEvidence({name: lie}, {}, 2, proofs={name: bytes([number])}),))


def test_what_anybody_can_recompute_holds_at_once_and_bans_the_second_time() -> None:
    once = play(proven("eve", 3))
    assert list(once.held) == ["eve"]
    assert re.fullmatch(
        r"its update is 3 times the bound; evidence [0-9a-f]{64} \(round 1\)", once.held["eve"]
    )
    assert once.banned == {}
    twice = play(proven("eve", 3), session(), proven("eve", 4))
    assert twice.held == {}
    assert twice.banned["eve"].startswith("a second time: its update is 4 times")


def test_two_proofs_of_one_round_are_one() -> None:
    both = RoundEvidence((*proven("eve", 3).sessions, *proven("eve", 4).sessions))
    assert list(play(both).held) == ["eve"]
    assert play(both).banned == {}


def test_statistics_and_words_never_ban() -> None:
    lied = session({"eve": "revealed nonsense"}, failed=True)
    silent = RoundEvidence(silent=frozenset({"eve"}))
    complaint = session(complaints={"eve": ("a", "b", "c")})
    for evidence in (lied, silent, complaint):
        assert play(*[evidence] * 6).banned == {}
