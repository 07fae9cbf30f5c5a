"""Statistics of one federation run with several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Losses = Sequence[float | None]  # held-out loss after every round, from round 0 (the base model)


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation of those that are known; None of fewer than two."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def fall(losses: Losses) -> float | None:
    """Return the fall of the loss from round 0 to the last.

    Every seed holds out other rows; its spread tells federations apart where the loss's cannot.
    """
    first, last = losses[0], losses[-1]
    return None if first is None or last is None else first - last


def rounds_to(losses: Losses, pooled: float | None, share: float) -> int | None:
    """The first round at which `share` of the fall from losses[0] to `pooled` is reached."""
    base = losses[0]
    if base is None or pooled is None or pooled >= base:
        return None
    goal = base - share * (base - pooled)
    return next((n for n, x in enumerate(losses) if n and x is not None and x <= goal), None)


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def with_spread(value: float | None, spread: float | None) -> str:
    """ "3.021 ± 0.013", or without the spread."""
    return number(value) + ("" if value is None or spread is None else f" ± {spread:.3f}")
