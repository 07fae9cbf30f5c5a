"""The desktop is told what needs a person, once, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nomoat.client.volunteer.status import VolunteerStatus
from nomoat.client.volunteer.telling.desktop_notices import AGAIN_S, DesktopNotices, news

IDLE = VolunteerStatus(1, "waiting", "waiting for the coordinator to open a round", 0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"doing": "refused", "why": "held: late"}, "Refused: held: late"),
        ({"why": "more steps are asked; nomoat agree"}, "more steps are asked; nomoat agree"),
        ({"complaint": "too many steps"}, "This machine declined: too many steps"),
        ({"data": "rows.jsonl is gone"}, "Your data has changed: rows.jsonl is gone"),
        ({"doing": "working", "why": "train.local"}, None),
        ({"doing": "connecting", "why": "no answer; next try in 8 s"}, None),
        ({"rounds": 5, "loss": 2.0, "version": 3}, None),
    ],
)
def test_what_needs_a_person_is_news_and_a_round_is_not(
    changed: dict[str, object], said: str | None
) -> None:
    assert news(IDLE, replace(IDLE, **changed)) == said  # type: ignore[arg-type]


def test_what_an_earlier_run_has_told_is_no_news_and_nothing_is_told_twice_in_a_while() -> None:
    told: list[tuple[str, str]] = []
    clock = [0.0]
    notices = DesktopNotices("town\u202e", lambda *said: told.append(said), lambda: clock[0])
    held = replace(IDLE, doing="refused", why="held: late")
    notices.status(held)
    assert told == []
    for _ in range(3):
        notices.status(IDLE)
        notices.status(held)
    assert told == [("town ", "Refused: held: late")]
    clock[0] = AGAIN_S
    notices.status(IDLE)
    notices.status(held)
    assert len(told) == 2
