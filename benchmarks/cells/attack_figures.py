"""The figures of a table of attacks: losses over those without liars, backdoors, who was named.

Above the bound are all liars but those exactly as large as it allows, and free riders, whose noise
has an honest update's size.
"""

from __future__ import annotations

from typing import Any

from nomoat.simulations.adversaries.kinds import Attack

HONEST = "honest"
AUDIT = "audit"
WITHIN = frozenset({Attack.ADAPTIVE.value, Attack.FREE_RIDER.value})
TIMES_EIGHT = frozenset(kind.value for kind in Attack) - WITHIN - {Attack.EDGE.value}
Line = dict[str, Any]


def summary(lines: list[Line]) -> dict[str, Any]:
    """Per attack, size and defence the means over seeds; losses over those without liars.

    A ratio is of one seed's losses, on the same honest members' rows; of each attack their mean
    over seeds counts, and the worst seed stands beside it.
    """
    groups: dict[str, list[Line]] = {}
    for line in lines:
        kind, volunteers, defence, _ = line["cell"]
        groups.setdefault(f"{kind}/{volunteers}/{defence}", []).append(line)
    table = {
        name: {key: _mean([line[key] for line in of]) for key in ("loss", "backdoor", "kept")}
        for name, of in groups.items()
    }
    ratios = {name: found for name, of in groups.items() if (found := _ratios(of, lines))}
    means = {name: _mean(found) for name, found in ratios.items()}
    return {
        "cells": table,
        "loss_ratios": means,
        "loss_ratios_worst_seed": {name: max(found) for name, found in ratios.items()},
        "worst_masked_loss_ratio": {
            defence: max((r for name, r in means.items() if name.endswith(defence)), default=None)
            for defence in sorted({name.split("/")[2] for name in table})
        },
        **_above_the_bound(groups, means, table),
        "clean_cost": _clean_cost(lines),
        "false_accusations": sum(len(line.get("accused", ())) for line in lines),
        "honest_volunteer_rounds": sum(line.get("honest_rounds", 0) for line in lines),
    }


def _above_the_bound(
    groups: dict[str, list[Line]], ratios: dict[str, float], table: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """What an audit leaves of liars above the bound, and of a backdoor that is within it."""
    above = [n for n in groups if _kind(n) not in WITHIN | {HONEST} and n.endswith(AUDIT)]
    within = {
        f"backdoor_in_bound_{name.split('/')[1]}": table[name]["backdoor"]
        for name in groups
        if _kind(name) == Attack.ADAPTIVE.value and name.endswith(AUDIT)
    }
    return {
        "worst_over_bound_loss_ratio": max((ratios[n] for n in above if n in ratios), default=None),
        "backdoor_over_bound": max((table[n]["backdoor"] for n in above), default=None),
        **within,
        "named_rounds_max": {
            "8 x": _latest([line for n in above if _kind(n) in TIMES_EIGHT for line in groups[n]]),
            "1.4 x": _latest(
                [line for n in above if _kind(n) not in TIMES_EIGHT for line in groups[n]]
            ),
        },
    }


def _latest(lines: list[Line]) -> dict[str, int | None]:
    """The latest round in which a liar was named, and how many never were."""
    rounds = [named for line in lines for named in line["named"].values()]
    known = [named for named in rounds if named is not None]
    return {"round": max(known, default=None), "never": len(rounds) - len(known)}


def _clean_cost(lines: list[Line]) -> float | None:
    """Of honest federations the loss with an audit over that without."""
    honest = {tuple(line["cell"]): line["loss"] for line in lines if line["cell"][0] == HONEST}
    pairs = [
        loss / without
        for (kind, volunteers, defence, seed), loss in honest.items()
        if defence == AUDIT
        and (without := honest.get((kind, volunteers, "none", seed))) is not None
    ]
    return _mean(pairs) if pairs else None


def _ratios(of: list[Line], lines: list[Line]) -> list[float]:
    clean = {tuple(line["cell"][1:]): line["loss"] for line in lines if line["cell"][0] == HONEST}
    return [
        line["loss"] / clean[where] for line in of if (where := tuple(line["cell"][1:])) in clean
    ]


def _kind(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
