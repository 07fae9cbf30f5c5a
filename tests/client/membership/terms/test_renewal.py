"""An owner is asked again when its community's terms go beyond what it agreed to, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import OneKey, community_info
from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol.community.terms import TermsEdition, check, sign
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import agreement
from nomoat.client.membership.agreement import Agreement
from nomoat.client.membership.terms import questions, renewal
from nomoat.client.membership.terms.changes import changes
from nomoat.client.membership.terms.renewal import AskedEdition, TermsWatch

KEY = SigningKey(b"\7" * 32)
SETTINGS = TrainSettings(local_steps=12, batch_size=4, seq_len=64, learning_rate=1e-3)
WORK = WorkTerms(SETTINGS, 1000, 24, bytes(64))
INFO = community_info(min_participants=8, allow_weak=False, public=KEY.public)
AGREED = replace(Agreement.signed(WORK), edition=1)
EDITION = TermsEdition(2, 100, True, 8, False, WORK, bytes(64))


def working(**settings: Any) -> TermsEdition:
    return replace(EDITION, work=replace(WORK, settings=replace(SETTINGS, **settings)))


def asked_of(edition: TermsEdition, fewest: int = 0) -> list[str]:
    return [each.words for each in changes(AGREED, INFO, edition, fewest) if each.asked]


def test_what_grows_beyond_the_room_is_asked_and_what_shrinks_is_not() -> None:
    assert changes(AGREED, INFO, EDITION, 0) == ()
    assert asked_of(working(local_steps=24)) == ["steps a round 12 -> 24"]
    assert asked_of(working(local_steps=14)) == []  # within 20 %
    assert asked_of(working(local_steps=3)) == []
    assert asked_of(working(learning_rate=1.0)) == ["learning rate 0.001 -> 1"]
    assert asked_of(working(batch_size=1)) == ["rows a step 4 -> 1"]
    more = replace(EDITION, work=replace(WORK, rounds_per_day=240))
    assert asked_of(more) == ["rounds a day 24 -> 240"]


def test_what_protects_less_is_asked_by_its_own_name() -> None:
    fewer, open_ = replace(EDITION, least=3), replace(EDITION, secure=False)
    assert asked_of(fewer) == ["participants of a sum at least 8 -> 3"]
    assert asked_of(open_) == ["updates masked -> in the open"]
    assert all(each.weakens for each in changes(AGREED, INFO, fewer, 0))
    assert asked_of(replace(EDITION, least=12)) == []


def test_an_owners_own_bounds_answer_beforehand() -> None:
    roomy = replace(AGREED, room_percent=100)
    (doubled,) = [
        each for each in changes(roomy, INFO, working(local_steps=24), 0) if "steps" in each.words
    ]
    assert not doubled.asked
    assert asked_of(replace(EDITION, least=3), fewest=8) == []  # summed among eight all the same


def test_an_edition_that_the_community_did_not_sign_is_refused() -> None:
    signed = sign(EDITION, KEY)
    assert check(signed, KEY.public) == signed
    with pytest.raises(RemoteProtocolError, match="not signed"):
        check(replace(signed, least=2), KEY.public)


class Coordinator(OneKey):
    """A coordinator that tells an edition and hears who agrees."""

    endpoint = None
    community = KEY.public

    def described(self) -> CommunityInfo:
        return replace(INFO, local_steps=24)

    def __init__(self) -> None:
        self.now: TermsEdition | None = EDITION
        self.heard: list[int] = []


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Coordinator()
    monkeypatch.setattr(questions, "edition", lambda _endpoint, _public: made.now)
    monkeypatch.setattr(questions, "agree", lambda _c, number, _now: made.heard.append(number))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> CommunityFolder:
    made = CommunityFolder(tmp_path / "town")
    made.save_info(INFO)
    agreement.save(made.root, AGREED)
    return made


def watching(folder: CommunityFolder, coordinator: Any, said: list[str | None]) -> TermsWatch:
    now = iter(range(0, 10_000, 100))
    return TermsWatch(
        folder,
        lambda: renewal.asked_now(folder, coordinator, 0),
        lambda asked: renewal.keep(folder, coordinator, asked),
        said.append,
        lambda: said.append("renewed"),
        lambda: float(next(now)),
    )


def test_nothing_is_trained_under_new_terms_until_the_owner_has_agreed(
    folder: CommunityFolder, coordinator: Any
) -> None:
    said: list[str | None] = []
    watch = watching(folder, coordinator, said)
    watch.look()
    assert (watch.waiting, coordinator.heard) == (False, [2])  # the same figures: none is asked
    coordinator.now = replace(working(local_steps=24), number=3)
    watch.look()
    assert watch.waiting
    assert said[-1] == (
        "edition 3 of the terms: steps a round 12 -> 24; nothing is trained before you agree: "
        "nomoat agree"
    )
    assert coordinator.heard == [2]
    asked = renewal.asked_now(folder, coordinator, 0)
    assert asked is not None
    renewal.agree(folder, coordinator, asked, renewal.renewed(folder, asked))
    watch.look()
    assert said[-1] == "renewed"
    assert coordinator.heard == [2, 3]
    agreed = agreement.load(folder.root, folder.info())
    assert (agreed.steps, agreed.edition, agreed.weak) == (24, 3, False)
    assert folder.info().local_steps == 24


def test_terms_that_are_taken_back_are_asked_about_no_more(
    folder: CommunityFolder, coordinator: Any
) -> None:
    said: list[str | None] = []
    watch = watching(folder, coordinator, said)
    coordinator.now = working(local_steps=24)
    watch.look()
    assert watch.waiting
    coordinator.now = replace(EDITION, number=3)
    watch.look()
    assert (watch.waiting, said[-1]) == (False, None)
    assert agreement.load(folder.root, folder.info()).steps == 12


def test_a_number_given_again_after_a_restore_is_another_edition(
    folder: CommunityFolder, coordinator: Any
) -> None:
    coordinator.now = replace(working(local_steps=14), number=2, at=1_000)
    asked = renewal.asked_now(folder, coordinator, 0)
    assert asked is not None
    renewal.agree(folder, coordinator, asked, renewal.renewed(folder, asked))
    assert renewal.asked_now(folder, coordinator, 0) is None
    coordinator.now = replace(working(local_steps=500), number=2, at=2_000)
    again = renewal.asked_now(folder, coordinator, 0)
    assert again is not None
    assert again.asked


def test_an_agreement_that_did_not_reach_the_coordinator_is_asked_for_again(
    folder: CommunityFolder, coordinator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise NomoatError("away")

    coordinator.now = replace(working(local_steps=24), number=3)
    asked = renewal.asked_now(folder, coordinator, 0)
    assert asked is not None
    with monkeypatch.context() as cut:
        cut.setattr(questions, "agree", away)
        with pytest.raises(NomoatError):
            renewal.agree(folder, coordinator, asked, renewal.renewed(folder, asked))
    again = renewal.asked_now(folder, coordinator, 0)
    assert again is not None
    assert again.asked
    renewal.agree(folder, coordinator, again, renewal.renewed(folder, again))
    assert coordinator.heard == [3]
    assert renewal.asked_now(folder, coordinator, 0) is None


def test_a_description_that_protects_less_than_the_terms_shown_is_not_taken(
    folder: CommunityFolder, coordinator: Any
) -> None:
    coordinator.now = replace(working(local_steps=24), number=3)
    asked = renewal.asked_now(folder, coordinator, 0)
    assert asked is not None
    for weaker in ({"min_participants": 3}, {"secure": False}, {"allow_weak": True}):
        coordinator.described = lambda weaker=weaker: replace(INFO, **weaker)
        with pytest.raises(RemoteProtocolError, match="less protection"):
            renewal.agree(folder, coordinator, asked, renewal.renewed(folder, asked))
    assert coordinator.heard == []
    assert folder.info() == INFO


def test_small_steps_do_not_add_up_to_more_than_was_agreed_to(
    folder: CommunityFolder, coordinator: Any
) -> None:
    watch = watching(folder, coordinator, [])
    for number, steps in enumerate((13, 14, 15), 2):
        coordinator.now = replace(working(local_steps=steps), number=number)
        watch.look()
    assert watch.waiting  # 15 is over 20 % more than 12, though not than 14


def test_a_coordinator_that_is_away_or_of_before_changes_nothing(
    folder: CommunityFolder, coordinator: Any
) -> None:
    said: list[str | None] = []
    watch = watching(folder, coordinator, said)
    coordinator.now = None
    watch.look()
    assert not watch.waiting
    assert agreement.load(folder.root, folder.info()) == replace(AGREED, edition=1)
    assert folder.info() == INFO

    def away() -> AskedEdition | None:
        raise Unreachable("away")

    watch.ask = away
    watch.look()
    assert not watch.waiting
