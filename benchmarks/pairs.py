"""Pairs of sums, one with a volunteer and one without: how much of its update do many of them tell?

python benchmarks/pairs.py [--draws N]

Nine volunteers train a linear model, each one step over a random half of rows of its own
(docs/protocol.md §19.6); one of them is in every other sum. The coordinator takes the mean of the
sums without it from the mean of those with it. "still": every round starts from the same adapter,
or one that hardly differs, which only who holds the community's key can have; "moving": every round
starts from what the one before gave, as it should. Printed are correlations with the volunteer's
own mean update.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

SIZE, VOLUNTEERS, RATE = 200, 9, 0.02


@dataclass(frozen=True)
class Seen:
    """Correlations with the update: of the difference of means, and of the first sum itself."""

    difference: float
    one_sum: float


def rounds(rows: int, pairs: int, rng: np.random.Generator, *, still: bool) -> Seen:
    """Run 2 * pairs rounds."""
    common = rng.standard_normal(SIZE)
    truths = [common + 0.5 * rng.standard_normal(SIZE) for _ in range(VOLUNTEERS)]
    inputs = [rng.standard_normal((rows, SIZE)) for _ in truths]
    targets = [
        x @ truth / np.sqrt(SIZE) + 0.5 * rng.standard_normal(rows)
        for x, truth in zip(inputs, truths, strict=True)
    ]
    start = np.zeros(SIZE)
    sums: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    own: list[np.ndarray] = []
    for number in range(2 * pairs):
        out = number % 2
        updates = []
        for x, y in zip(inputs, targets, strict=True):
            half = rng.permutation(rows)[: rows // 2]
            updates.append(-RATE * x[half].T @ (x[half] @ start - y[half]) / len(half))
        if not out:
            own.append(-RATE * inputs[0].T @ (inputs[0] @ start - targets[0]) / rows)
        total = np.sum(updates[out:], axis=0)
        sums[out].append(total)
        if not still:
            start = start + total / (VOLUNTEERS - out)
    update = np.mean(own, axis=0)
    found = np.mean(sums[0], axis=0) - np.mean(sums[1], axis=0)
    return Seen(_correlation(found, update), _correlation(sums[0][0], update))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    """Print a line for each number of rows and of pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    draws = parser.parse_args().draws
    for rows in (36, 360, 3600):
        for pairs in (1, 4, 16, 64):
            rng = np.random.default_rng(rows + pairs)
            cells = {}
            for still in (True, False):
                seen = [rounds(rows, pairs, rng, still=still) for _ in range(draws)]
                cells[still] = np.mean([one.difference for one in seen])
            alone = np.mean([one.one_sum for one in seen])
            print(
                f"{rows:5} rows, {pairs:3} pairs: still {cells[True]:.2f}, "
                f"moving {cells[False]:.2f}; one sum itself {alone:.2f}"
            )


if __name__ == "__main__":
    main()
