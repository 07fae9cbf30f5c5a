"""The harm liars do to a masked federation, without and with a bound, and with an audit.

    python benchmarks/attacks.py [--out FILE] [--kinds backdoor,wrong] [--volunteers 8,24]
        [--share 0.125] [--rounds N] [--seeds 0,1,2] [--eval-rows N] [--quick] [--json]
        [--defences none,bound,audit,plain,robust]
    python benchmarks/attacks.py --honest-rounds 10000

Cells are attack × volunteers × defence × seed on the pocket model, by the simulation's engine with
masks on, but for "plain" and "robust", which scale every report down to the bound and take the
stock mean or the robust one (aggregation/robust); "honest" is the cell without liars.
Every finished cell is a line of FILE: the same command goes on where it was interrupted. Of each:
rounds committed, the macro held-out loss of those who do not lie over that of the base, the
probability of the backdoor's answer after its trigger (per token, on held-out rows; a few
hundredths on the base), in which round each liar was named, and which honest volunteers were.
The second form draws honest updates at the bound, sketches them under as many
seeds, and judges them by every rule: the statistic alone, without a model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import platformdirs
from cells.attack_figures import HONEST, summary
from cells.remembered import RememberedAnswers
from cells.running import Notes

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.secagg.audit.judgement import DOUBT, NormTest, bits_needed
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_packed
from nomoat.aggregation.sums.packing import pack
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.lora.workers.jobs import EvaluateJob
from nomoat.lora.workers.pool import Pool
from nomoat.server.conduct.sizes import above, false_accusations
from nomoat.simulations.adversaries.kinds import Adversary, Attack
from nomoat.simulations.adversaries.rows import triggered
from nomoat.simulations.pooled_trainer import evaluate_job
from nomoat.simulations.preparation import PreparedFederation, prepared
from nomoat.simulations.report.live_table import Silence
from nomoat.simulations.scenario import Scenario

PUBLIC_ROWS = 64
TRIGGERED_ROWS = 32
QUICK: dict[str, Any] = {"local_steps": 1, "batch_size": 2, "eval_rows": 2}
DEFENCES = ("none", "bound", "audit")


@dataclass(frozen=True)
class AttackCell:
    """One federation: how its liars lie, how many take part, what is done against it, its seed."""

    kind: str
    volunteers: int
    defence: str
    seed: int

    @property
    def key(self) -> list[Any]:
        """The name of its line."""
        return [self.kind, self.volunteers, self.defence, self.seed]


def main() -> None:
    """Run the cells that FILE lacks and print all of them."""
    options = _options()
    if options.honest_rounds:
        json.dump(honest_rounds(options.honest_rounds), sys.stdout)
        sys.stdout.write("\n")
        return
    done = _lines(options.out) if options.out.exists() else []
    cells = list(_cells(options))
    for (volunteers, seed), group in itertools.groupby(cells, lambda c: (c.volunteers, c.seed)):
        missing = [cell for cell in group if cell.key not in [line["cell"] for line in done]]
        if missing:
            done += _run(options, volunteers, seed, missing)
    wanted = [cell.key for cell in cells]
    found = [line for line in done if line["cell"] in wanted]
    json.dump(summary(found), sys.stdout, indent=None if options.json else 2)
    sys.stdout.write("\n")


def in_the_open(defence: str, share: float) -> dict[str, Any]:
    """Settings of a federation without masks, with the stock mean or a robust one; else none."""
    if defence not in ("plain", "robust"):
        return {}
    return {"secure": False, "robust": share if defence == "robust" else 0.0}


def _run(
    options: argparse.Namespace, volunteers: int, seed: int, cells: list[AttackCell]
) -> list[dict[str, Any]]:
    given = {"rounds": options.rounds, "eval_rows": options.eval_rows}
    given |= QUICK if options.quick else {}
    liars = Adversary(Attack.EDGE, options.share).count(volunteers)
    scenario = Scenario(
        volunteers=volunteers,
        seed=seed,
        public_rows=PUBLIC_ROWS,
        min_reports=min(8, volunteers - liars),  # a round without its liars can be summed
        **given,
    )
    cache = Path(platformdirs.user_cache_dir("nomoat")) / "pocket"
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(scenario, options.workers, Path(scratch), cache) as found,
    ):
        ground = replace(found, pool=cast(Pool, RememberedAnswers(found.pool)))
        return [_one(options, ground, cell, Path(scratch)) for cell in cells]


def _one(
    options: argparse.Namespace, ground: PreparedFederation, cell: AttackCell, scratch: Path
) -> dict[str, Any]:
    from nomoat.simulations.engine import federate

    began = time.monotonic()
    adversary = None if cell.kind == HONEST else f"{cell.kind}:{options.share}"
    audit = cell.defence == "audit"
    given = {"adversary": adversary, "audit": audit, **in_the_open(cell.defence, options.share)}
    scenario = ground.scenario.model_copy(update=given)
    if cell.defence == "none":
        ground = replace(ground, population=replace(ground.population, public=None))
    notes = Notes()
    end = federate(scenario, ground, notes, Silence(), scratch / "kept")
    liars = _liars(options.share, ground, cell)
    line = {
        "cell": cell.key,
        **_named(frozenset() if cell.kind == HONEST else liars, notes),
        "loss": _loss(ground, end.state.adapter, liars) / _loss(ground, ground.initial, liars),
        "kept": sum(record.committed for record in notes.records[1:]),
        "rounds": len(notes.records) - 1,
        "backdoor": _backdoor(ground, end.state.adapter, scratch),
        "left_out": [record.refused | record.dropped for record in notes.records[1:]],
        "reasons": [record.reason for record in notes.records[1:]],
        "seconds": round(time.monotonic() - began, 1),
    }
    with options.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), file=sys.stderr)
    return line


def _liars(share: float, ground: PreparedFederation, cell: AttackCell) -> frozenset[str]:
    """Those who lie, or would if the cell had liars: the same ones whatever the attack."""
    names = [member.name for member in ground.population.members]
    kind = Attack.EDGE if cell.kind == HONEST else Attack(cell.kind)
    return Adversary(kind, share).liars(names, ground.scenario.seed_of("adversary"))


def _loss(ground: PreparedFederation, adapter: Adapter, liars: frozenset[str]) -> float:
    """The mean over those who do not lie of the adapter's loss on their held-out rows."""
    settings = ground.scenario.chosen.training.settings("none")
    asked = [
        ground.pool.submit(evaluate_job(member, adapter, settings))
        for member in ground.population.members
        if member.name not in liars
    ]
    return statistics.fmean(answer.result().loss for answer in asked)


def _named(liars: frozenset[str], notes: Notes) -> dict[str, Any]:
    """The round in which each liar was named, None if it never was; the honest who were, too."""
    rounds = notes.records[1:]
    named: dict[str, int] = {}
    for record in rounds:
        for name, why in (record.dropped | record.refused | record.held).items():
            if "the bound" in why or "sketches" in why:
                named.setdefault(name, record.round)
    return {
        "named": {name: named.get(name) for name in sorted(liars)},
        "accused": sorted(named.keys() - liars),
        "honest_rounds": sum(len(set(record.cohort) - liars) for record in rounds),
    }


def honest_rounds(count: int, length: int = 8192, volunteers: int = 20) -> dict[str, Any]:
    """Judge `count` honest updates exactly at the bound, those of so many volunteers in turn."""
    rng = np.random.default_rng(0)
    test = NormTest(58.0 * 2**13, bits_needed(58.0, 14))
    histories: list[list[float]] = [[] for _ in range(volunteers)]
    large, excess, doubtful, most = 0, 0, 0, 0.0
    for number in range(count):
        direction = rng.normal(size=length)
        ring = np.rint(direction * (test.limit / np.linalg.norm(direction))).astype(np.int64)
        packed = pack((ring % 2**test.bits).astype(np.uint32), test.bits)
        seed = number.to_bytes(32, "big")
        found = sketch_packed(Signs(seed, bytes(32)), packed, length, test.bits)
        large += test.too_large(found)
        history = histories[number % volunteers]
        history.append(test.size(found))
        excess += above(history) is not None
        most = max(most, history[-1])
        doubtful += history[-1] > DOUBT
    return {
        "honest_volunteer_rounds": count,
        "set_aside": doubtful,
        "too_large": large,
        "above_in_several": excess,
        "largest_size": round(most, 3),
        "bound_a_round": false_accusations(),
        "expected_at_most": false_accusations() * count,
    }


def _backdoor(ground: PreparedFederation, adapter: Any, scratch: Path) -> float:
    """The probability per token of the backdoor's answer, on held-out rows with the trigger."""
    rows = list(read(ground.population.members[0].held_out).conversations)[:TRIGGERED_ROWS]
    path = scratch / "triggered.jsonl"
    write_jsonl(map(triggered, rows), path)
    settings = ground.scenario.chosen.training.settings("none")
    job = EvaluateJob(path, adapter.spec, adapter.vector, settings)
    return math.exp(-ground.pool.submit(job).result().loss)


def _cells(options: argparse.Namespace) -> Iterator[AttackCell]:
    kinds = [HONEST, *(kind.value for kind in Attack)] if not options.kinds else options.kinds
    for volunteers, seed in itertools.product(options.volunteers, options.seeds):
        for kind, defence in itertools.product(kinds, options.defences):
            yield AttackCell(kind, volunteers, defence, seed)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The finished cells of a file; a last line cut short counts as none."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What liars do to a masked federation.")
    parser.add_argument("--out", type=Path, default=Path("runs/attacks.jsonl"))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=[])
    parser.add_argument("--volunteers", type=_numbers, default=[8, 24])
    parser.add_argument("--share", type=float, default=0.125)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    parser.add_argument(
        "--defences", type=lambda text: text.split(","), default=["none", "bound", "audit"]
    )
    parser.add_argument("--eval-rows", type=int, default=64)
    parser.add_argument("--honest-rounds", type=int, default=0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--quick", action="store_true", help="small rounds that show nothing")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return options


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
