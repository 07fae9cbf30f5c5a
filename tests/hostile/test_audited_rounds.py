"""Who is too large for an audited round is held with evidence, the second time banned, and heard.

Real machines on both sides, over several rounds, with the database between them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.aggregation.errors import Refused
from nomoat.aggregation.protocol.history.appeal import Appeal
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.secagg.audit.evidence import digest_of
from nomoat.aggregation.secagg.audit.judgement import DOUBT, TOLERANCE
from nomoat.server.conduct.cases import Cases
from nomoat.server.conduct.ledger import ConductLedger
from nomoat.server.erasure import held_of
from nomoat.server.rounds.machines.masked_exchange import IN_DOUBT
from nomoat.simulations.adversaries.kinds import Attack
from tests.hostile.members import Village

LIAR = "v3"
AUDITED = {"norm_bound": 0.05, "audit": True}


def village(folder: Path) -> Village:
    return Village(folder, 8, liars={LIAR})


def test_too_large_an_update_is_left_out_and_its_sender_held_with_evidence(tmp_path: Path) -> None:
    town = village(tmp_path)
    first, second = town.run(2, **AUDITED)
    assert first.committed
    assert LIAR not in first.contributors
    assert "times the bound" in first.dropped[LIAR]
    assert list(first.held) == [LIAR]
    (kept,) = Cases(town.registrar.database).of(LIAR)
    reason = town.held()[LIAR]
    assert reason.startswith("by the coordinator: its update is")
    assert reason.endswith(f"evidence {digest_of(kept.data).hex()} (round 1)")
    found = kept.read()
    assert found.accused == town.machines[LIAR].key.public
    assert (found.round, found.says) == (1, first.dropped[LIAR])
    assert second.committed
    assert LIAR not in second.cohort


def test_a_second_proof_bans_whatever_was_decided_about_the_first(tmp_path: Path) -> None:
    town = village(tmp_path)
    town.run(1, **AUDITED)
    town.registrar.order(LIAR, Event.RELEASE, "believed", town.now)
    town.restart()
    again, after = town.run(2, **AUDITED)
    assert again.committed
    member = town.registrar.roster().members[LIAR]
    assert member.standing == "banned"
    assert member.reason.startswith("by the coordinator: a second time: its update is")
    assert len(member.reason) <= 200
    assert len(Cases(town.registrar.database).of(LIAR)) == 2
    assert LIAR not in after.cohort


def test_a_little_too_large_an_update_is_set_aside_without_a_case_until_rounds_together_show_it(
    tmp_path: Path,
) -> None:
    """Sketches differ from run to run: what they told decides, in each round."""
    town = Village(tmp_path, 8, liars={LIAR}, attack=Attack.EDGE)
    for _ in range(16):
        (record,) = town.run(1, **AUDITED)
        assert record.committed
        cases = Cases(town.registrar.database)
        told = cases.sizes_of(LIAR)[-1]
        assert (LIAR in record.contributors) == (told <= DOUBT)
        if DOUBT < told <= TOLERANCE:
            assert record.dropped[LIAR] == IN_DOUBT
            assert not cases.of(LIAR)
            assert not ConductLedger(town.registrar).counting()
        if LIAR in town.held():
            break
        town.restart()
    assert list(town.held()) == [LIAR]


def test_honest_members_of_an_audited_round_have_no_case(tmp_path: Path) -> None:
    town = Village(tmp_path, 8)
    records = town.run(2, **AUDITED)
    for record in records:
        assert record.committed
        assert set(record.dropped.values()) <= {IN_DOUBT}  # by chance, and blamed on nobody
        assert len(record.contributors) + len(record.dropped) == 8
    assert not town.held()
    assert not ConductLedger(town.registrar).counting()


def test_the_accused_is_heard_and_only_it(tmp_path: Path) -> None:
    town = village(tmp_path)
    town.run(1, **AUDITED)
    cases, now = Cases(town.registrar.database), town.now
    for text in ("my battery", "my disk"):
        cases.hear(town.registrar, town.machines[LIAR].key.public, Appeal(text), now)
    said = cases.appeal_of(LIAR)
    assert said is not None
    assert (said.text, said.at) == ("my disk", now)
    with pytest.raises(Refused, match="only who is held or banned"):
        cases.hear(town.registrar, town.machines["v0"].key.public, Appeal("me too"), now)
    held = held_of(town.registrar, LIAR)
    assert held["appeal"]["text"] == "my disk"
    assert [each["digest"] for each in held["evidence"]] == [cases.of(LIAR)[0].digest.hex()]
