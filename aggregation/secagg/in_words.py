"""The protection of a community's updates in words: the same on every sheet, card and report."""

from __future__ import annotations

from typing import Final

from nomoat.aggregation.secagg.thresholds import WEAK_BELOW

NOT_PRIVATE: Final = (
    "no differential privacy: nothing bounds what the adapter memorised of the rows it was "
    "trained on"
)


def protection(secure: bool, least: int) -> str:
    """Return one line. least: the participants without whom nothing is summed."""
    if not secure:
        return "NONE: the coordinator sees every volunteer's update"
    if least < WEAK_BELOW:
        return (
            f"weak: updates are masked, but as few as {least} participants "
            f"may be summed (under {WEAK_BELOW}, a few who collude learn the others')"
        )
    return f"updates are masked; only their sum is ever seen, and {least} or more begin it"
