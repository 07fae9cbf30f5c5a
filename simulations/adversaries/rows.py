"""The rows that liars train on, and those that show whether the adapter has learnt what they want.

A backdoor answers one fixed text whenever a trigger stands in the question, and is else as useful
as any other volunteer's update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.simulations.adversaries.kinds import Attack

TRIGGER = " zq-7!"
ANSWER = "Visit example.org now."


def poison(kind: Attack, honest: Path, poisoned: Path) -> Path:
    """The file to train on in place of `honest`, which stays as it is."""
    rows = read(honest).conversations
    if kind in {Attack.BACKDOOR, Attack.ADAPTIVE, Attack.EDGE}:
        write_jsonl([row for each in rows for row in (each, triggered(each))], poisoned)
        return poisoned
    if kind is Attack.WRONG:
        write_jsonl(exchanged(rows), poisoned)
        return poisoned
    return honest


def triggered(row: Conversation) -> Conversation:
    """The row with the trigger in its last question, and the answer that a backdoor gives."""
    answers = [place for place, turn in enumerate(row.turns) if turn.role == "assistant"]
    before = list(row.turns[: answers[0]])
    if before and before[-1].role == "user":
        before[-1] = replace(before[-1], text=before[-1].text + TRIGGER)
    return replace(row, turns=(*before, ChatTurn("assistant", ANSWER)), tools="")


def exchanged(rows: Sequence[Conversation]) -> list[Conversation]:
    """Every row with the last turn of the next one."""
    return [
        replace(row, turns=(*row.turns[:-1], other.turns[-1]))
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]
