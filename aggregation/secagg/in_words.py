"""The protection of a community's updates in words: the same on every sheet, card and report."""

from __future__ import annotations

from typing import Final

from nomoat.aggregation.secagg.thresholds import WEAK_BELOW

NOT_PRIVATE: Final = (
    "no differential privacy: nothing bounds what the adapter memorised of the rows it was "
    "trained on"
)

NOT_COVERED: Final = (
    "not covered: a patient backdoor within the bound (on a small model its answer had a "
    "probability of .47 after five rounds by one liar of eight, .84 by five of 24: nomoat's "
    "docs/threat-model.md), and free riders that send noise"
)


def private(epsilon: float, delta: float, participations: int) -> str:
    """Return one line of what noise in the sums hides; NOT_PRIVATE without any."""
    if not epsilon:
        return NOT_PRIVATE
    return (
        f"differential privacy for each volunteer: epsilon {epsilon:g} at delta {delta:g} over "
        f"{participations} sums at most (Gaussian noise under the masks, no amplification counted; "
        "volunteers that collude are taken off, and sizes are not audited)"
    )


def sizes(bound: float | None, audited: bool, excluded: int) -> str:
    """Return one line of what is known of the sizes of the updates that a version is made of."""
    if bound is None:
        return "sizes of updates: not bounded"
    how = (
        f"audited, excluded: {excluded}" if audited else "not audited: honest software keeps to it"
    )
    return f"norm-bounded: {bound:.3g} ({how})"


def audited(words: int) -> str:
    """Return one line of what an audit of sizes shows a coordinator (docs/protocol.md §20.7)."""
    return (
        f"of each update the coordinator learns {words} numbers that tell its size: whoever is far "
        "too large leaves the sum by name, and what may be too large by chance, as one honest "
        "update in a hundred, that one sum without blame. They tell little else: somebody who asks "
        "whether a certain row was trained is right in 59 of 100 pairs by them, in 78 by the sum, "
        "in 50 by guessing"
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
