"""Server aggregation beside what a user would write with numpy; ratios within one run.

Every ratio is also given in processor seconds (`cpu_ratio`, all threads together), which other
programs on the machine disturb less than seconds of wall time.

`mean_ratio`: for each summable method, everything the coordinator does with the reports of a
round (door check, exact streaming sum, mean, commit; both exchanges where there are two) over
numpy's float32 mean of the same reports, held in memory as one array. `flexlora_ratio`: the dense
way (sum the products, SVD of the d × d matrix) over the low-rank way, one layer. Ours uses a
thread per core for the sum, as the coordinator does; numpy's mean has no threads to use. BLAS runs
on one thread for all.

    python benchmarks/aggregate.py [--json] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# Read when numpy is imported: BLAS threads would spin against those of the sum.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.methods import METHODS, SummedMethod, get
from nomoat.aggregation.methods.base import MethodState, PlaintextMethod, PlaintextReport
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, Vector
from nomoat.aggregation.sums.intake import Intake

Reports = NDArray[np.float32]

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
POOL = ThreadPoolExecutor(THREADS)  # as the coordinator's; numpy's own mean uses one core


@dataclass(frozen=True)
class Size:
    """The size measured: reports, layers of width × width at a rank, and the dense layer."""

    reports: int
    layers: int
    width: int
    rank: int
    dense_width: int
    repeats: int


@dataclass(frozen=True)
class Spent:
    """Seconds of wall time and of processor time in all threads."""

    wall: float
    cpu: float


FULL = Size(reports=100, layers=76, width=4096, rank=16, dense_width=4096, repeats=5)
QUICK = Size(reports=20, layers=8, width=1024, rank=8, dense_width=768, repeats=2)


def main() -> None:
    """Measure, print a table, or one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object on stdout")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    state = new_state(size)
    reports = new_reports(size, state.adapter.spec)
    results = {
        name: measure(method, state, reports, size.repeats)
        for name, method in METHODS.items()
        if isinstance(method, SummedMethod)
    }
    flexlora = measure_flexlora(size)
    found = {
        "parameters": state.adapter.spec.size,
        "reports": size.reports,
        "threads": THREADS,
        "mean_ratio": {name: round(result["ratio"], 3) for name, result in results.items()},
        "cpu_ratio": {name: round(result["cpu_ratio"], 3) for name, result in results.items()},
        "seconds": {name: round(result["seconds"], 4) for name, result in results.items()},
        "peak_per_value": {name: round(result["peak"], 1) for name, result in results.items()},
        "flexlora_ratio": round(flexlora["dense"].wall / flexlora["low_rank"].wall, 1),
        "flexlora_cpu_ratio": round(flexlora["dense"].cpu / flexlora["low_rank"].cpu, 1),
        "flexlora_seconds": {name: round(spent.wall, 4) for name, spent in flexlora.items()},
    }
    print(json.dumps(found) if options.json else table(found, results, flexlora))


def new_state(size: Size) -> MethodState:
    """A community adapter with non-zero factors."""
    names = [f"layer{i:03d}" for i in range(size.layers)]
    layers = tuple(LayerSpec(name, size.width, size.width, size.rank) for name in names)
    spec = AdapterSpec(layers, size.rank, 2.0 * size.rank)
    values = np.random.default_rng(0).standard_normal(spec.size, np.float32)
    values *= np.float32(0.01)
    return MethodState(Adapter(spec, values), size.rank)


def new_reports(size: Size, spec: AdapterSpec) -> Reports:
    """(n, longest report) values of the size of LoRA deltas, each report different."""
    longest = max(
        method.manifest(spec, 1, exchange).size
        for method in METHODS.values()
        if isinstance(method, SummedMethod)
        for exchange in range(1, method.traits.exchanges + 1)
    )
    base = np.random.default_rng(1).standard_normal(longest, np.float32)
    reports = np.empty((size.reports, longest), np.float32)
    for index in range(size.reports):
        np.multiply(np.roll(base, index), np.float32(1e-3), out=reports[index])
    reports.setflags(write=False)
    return reports


def aggregate(method: SummedMethod, state: MethodState, reports: Reports) -> MethodState:
    """Do the coordinator's work between the reports' arrival and the next broadcast."""
    spec = state.adapter.spec
    weights = np.random.default_rng(2).uniform(0.1, 1.0, len(reports)).tolist()
    reply: Vector | None = None
    for exchange in range(1, method.traits.exchanges + 1):
        manifest = method.manifest(spec, 1, exchange)
        intake = Intake.of(manifest, POOL.map)
        refused: dict[str, str] = {}
        for index, weight in enumerate(weights):
            body = reports[index, : manifest.size].data.cast("B")
            refused |= intake.add(f"volunteer {index}", body, weight)
        refused |= intake.settle()
        assert not refused, refused
        mean = intake.mean()
        if exchange < method.traits.exchanges:
            reply = method.reply(state, mean, 1, exchange, POOL.map)
    return method.commit(state, method.update(state, mean, 1), 1, reply, POOL.map)


def numpy_mean(method: SummedMethod, state: MethodState, reports: Reports) -> None:
    """The yardstick: one float32 mean over the same data."""
    for exchange in range(1, method.traits.exchanges + 1):
        size = method.manifest(state.adapter.spec, 1, exchange).size
        np.mean(reports[:, :size], axis=0, dtype=np.float32)


def measure(
    method: SummedMethod, state: MethodState, reports: Reports, repeats: int
) -> dict[str, float]:
    """Best times of both, taken in turn; peak memory of ours in bytes per summed value."""
    note(f"{method.name} …")
    ours, yardstick = [], []
    for _ in range(repeats):
        yardstick.append(timed(lambda: numpy_mean(method, state, reports)))
        ours.append(timed(lambda: aggregate(method, state, reports)))
    tracemalloc.start()
    aggregate(method, state, reports)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    values = method.manifest(state.adapter.spec, 1, 1).size
    mine, theirs = least(ours), least(yardstick)
    return {
        "seconds": mine.wall,
        "mean_seconds": theirs.wall,
        "ratio": mine.wall / theirs.wall,
        "cpu_ratio": mine.cpu / theirs.cpu,
        "peak": peak / values,
    }


def measure_flexlora(size: Size) -> dict[str, Spent]:
    """One layer, 20 volunteers of rank 16: seconds of the low-rank and of the dense way."""
    note("flexlora, low-rank and dense …")
    rank, count, width = 16, 20, size.dense_width
    spec = AdapterSpec((LayerSpec("layer", width, width, rank),), rank, 16.0)
    rng = np.random.default_rng(3)
    vectors = [rng.standard_normal(spec.size, np.float32) for _ in range(count)]
    uploads = tuple(PlaintextReport(1.0, vector, rank) for vector in vectors)
    state = MethodState(Adapter(spec, vectors[0]), rank)
    method = get("flexlora")
    assert isinstance(method, PlaintextMethod)
    low_rank = least([timed(lambda: method.commit_each(state, uploads, 1)) for _ in range(3)])
    ours = next(method.commit_each(state, uploads, 1).adapter.factors())
    dense: list[NDArray[np.float32]] = []
    spent = timed(lambda: dense.append(dense_truncation(spec, vectors, rank)))
    error = np.linalg.norm(ours[2] @ ours[1] - dense[0]) / np.linalg.norm(dense[0])
    if error > 1e-3:  # both in float32 at least; a fast wrong answer is no answer
        sys.exit(f"low-rank and dense results differ by {error:.1e}")
    return {"low_rank": low_rank, "dense": spent}


def dense_truncation(spec: AdapterSpec, vectors: list[Vector], rank: int) -> NDArray[np.float32]:
    """SVD_r of the mean product as the paper writes it."""
    layer = spec.layers[0]
    total = np.zeros((layer.d_out, layer.d_in), np.float32)
    for vector in vectors:
        _, a, b = next(Adapter(spec, vector).factors())
        total += b @ a
    u, sigma, vt = np.linalg.svd(total / np.float32(len(vectors)), full_matrices=False)
    return np.asarray((u[:, :rank] * sigma[:rank]) @ vt[:rank], np.float32)


def timed(work: Callable[[], object]) -> Spent:
    """Return the seconds that `work` took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def least(runs: list[Spent]) -> Spent:
    """The least of each over several runs."""
    return Spent(min(run.wall for run in runs), min(run.cpu for run in runs))


def table(
    found: dict[str, object], results: dict[str, dict[str, float]], flexlora: dict[str, Spent]
) -> str:
    """The results for people."""
    lines = [
        f"{found['reports']} reports of an adapter of {found['parameters']:,} values, "
        f"{THREADS} threads",
        f"{'method':<10}{'seconds':>9}{'numpy':>9}{'ratio':>8}{'cpu':>7}{'bytes/value':>13}",
    ]
    lines += [
        f"{name:<10}{one['seconds']:>9.3f}{one['mean_seconds']:>9.3f}{one['ratio']:>8.2f}"
        f"{one['cpu_ratio']:>7.2f}{one['peak']:>13.1f}"
        for name, one in results.items()
    ]
    lines.append(
        f"flexlora, one layer: {flexlora['low_rank'].wall:.3f} s low-rank, "
        f"{flexlora['dense'].wall:.2f} s dense, ratio {found['flexlora_ratio']}"
    )
    return "\n".join(lines)


def note(text: str) -> None:
    """Progress, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
