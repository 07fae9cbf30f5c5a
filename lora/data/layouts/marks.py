"""Marks of what not to train on, as people write them: known ones are kept, others are refused.

weight: 0 or 1      train, training, trainable: true or false      loss: true or false
masked: true or false (true: not trained on)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nomoat.aggregation.errors import BadData

POSITIVE = ("weight", "train", "training", "trainable", "loss")
NEGATIVE = ("masked",)
MARKS = (*POSITIVE, *NEGATIVE)
WORDS = frozenset(
    (
        "train", "training", "trained", "trainable", "loss", "losses", "mask", "masks", "masked",
        "unmasked", "weight", "weights", "learn", "learnt", "learned", "supervise", "supervised",
        "ignore", "ignored", "label", "labels",
    )
)  # fmt: skip
SAID = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}


def turn_mark(turn: Mapping[str, Any], origin: str) -> bool | None:
    """Return False if a turn is not to be trained on, None if it does not say.

    BadData for a mark with another value, for marks that contradict each other, and for a key that
    looks like a mark and is none that is known.
    """
    found: dict[str, bool] = {}
    for key, value in turn.items():
        if value is None:
            continue
        if key in MARKS:
            found[key] = _said(value, key, origin) == (key in POSITIVE)
        elif looks_like_mark(key, value):
            raise BadData(
                f"{origin}: {key[:40]!r} in a turn looks like a mark of what to train on and is "
                f"none that is known ({', '.join(MARKS)}); rename it or take it out"
            )
    if len(set(found.values())) > 1:
        raise BadData(f"{origin}: {' and '.join(found)} of a turn contradict each other")
    return next(iter(found.values()), None)


def row_is_left_out(values: Mapping[str, Any]) -> bool:
    """Tell a row that as a whole is marked as not to be trained on."""
    return any(key in values and _plainly(values[key], key) == (key in NEGATIVE) for key in MARKS)


def check_row(
    values: Mapping[str, Any], used: frozenset[str], has_replies: bool, origin: str
) -> None:
    """Raise BadData for a column that looks like marks of turns or tokens, which none is.

    A label of plain text is its own; that of a reply says if it is a good one (KTO).
    """
    for key, value in values.items():
        if key in used or key in MARKS or not _words(key) & WORDS:
            continue
        marks = isinstance(value, list) and value and all(_is_mark(item) for item in value)
        if marks or (isinstance(value, bool) and has_replies):
            raise BadData(
                f"{origin}: column {key[:40]!r} looks like marks of what to train on and is not "
                "understood; write train: false into the turns, or take the column out"
            )


def looks_like_mark(key: str, value: object) -> bool:
    """Tell a key of a turn that seems to say whether to train on it."""
    return bool(_words(key) & WORDS) and (
        _is_mark(value)
        or isinstance(value, list | dict)
        or (isinstance(value, str) and value.strip().lower() in (*SAID, "yes", "no"))
    )


def _is_mark(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _words(key: str) -> set[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key))
    return set(re.split(r"[^a-z]+", parted.lower()))


def _said(value: object, key: str, origin: str) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in SAID:
        return SAID[value.strip().lower()]
    raise BadData(
        f"{origin}: {key} {str(value)[:20]!r} of a turn: it is trained on (1, true) or not "
        "(0, false)"
    )


def _plainly(value: object, key: str) -> bool | None:
    """Read a column of this name as a mark; None if it may well be something else."""
    if isinstance(value, str):
        return SAID.get(value.strip().lower())
    if isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and key != "loss"  # a loss may be 0.0
    return bool(value) if is_number and value in (0, 1) else None
