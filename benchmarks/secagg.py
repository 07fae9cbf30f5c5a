"""Secure aggregation against Flower's own SecAgg+ and against the machine, in one run, one core.

    python benchmarks/secagg.py [--json] [--parts flower,cost,session,audit] [--size D]
        [--repeats R]

flower   D = 10 M parameters, 16 neighbours, 2 dropouts: both libraries mask and unmask the same
         updates, alternating, volunteer by volunteer; ratios are medians. Function against
         function: ours from the decoded ShareSet to the signed MaskedReport (rounding, masks,
         packing, one SHA-256, one signature), theirs the function that does the same. Neither is
         framed for the network; mask_framed_ratio adds our framing (a second SHA-256) to ours
         only.
session  n = 1000 volunteers of 100 000 parameters, 200 of which drop out after sharing: everybody
         does everything, on one core, one after the other.
cost     what one volunteer and the coordinator pay at 1 M parameters for n = 10, 100, 1000 (and
         10 000, extrapolated), from measured parts.
audit    what an audit of norms adds for one volunteer, 10 M parameters and 16 neighbours: audit_ns
         per value and mask, audit_mask_ratio over rounding, masking, packing and hashing.

Seconds are CPU seconds: what it takes on an idle core, whatever else the machine is doing. Set
OMP_NUM_THREADS=1 for one core. n1000_seconds is the whole session's, all volunteers together.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from masked.comparison import compare_with_flower
from masked.costs import audit_once, costs, mask_once
from masked.session import EXCHANGES, Ours, verify_each_time
from masked.timing import CLIP, timed, updates

from nomoat.aggregation.secagg.parameters import DEFAULT_ASSUMPTIONS
from nomoat.aggregation.secagg.thresholds import thresholds
from nomoat.aggregation.sums.fixed_point import FixedPoint


def thousand(count: int = 1000, size: int = 100_000) -> dict[str, Any]:
    """A full session with 20 % dropouts after sharing; seconds per volunteer and altogether."""
    pool = [updates(np.random.default_rng(i), size) for i in range(16)]
    seconds, session = timed(lambda: Ours(count, size, lambda i: pool[i % 16]))
    dropped = set(range(0, count, 5))
    run_s, step = timed(lambda: session.run(dropped))
    live = [i for i in range(count) if i not in dropped]
    exact = np.mean([pool[i % 16].astype(float) for i in live], axis=0)
    needed = thresholds(count, DEFAULT_ASSUMPTIONS)
    return {
        "n1000_seconds": seconds + run_s,
        "n1000_participants": count,
        "n1000_size": size,
        "n1000_neighbours": needed.neighbours,
        "n1000_summed": step.result.participants,
        "n1000_worst_error": float(np.abs(step.result.mean - exact).max()) / CLIP,
        "n1000_up_bytes": max(session.up.values()),
        "n1000_down_bytes": max(session.down.values()),
        **{f"n1000_client_{k}_s": statistics.median(v) for k, v in session.client_s.items()},
        **{f"n1000_server_{k}_s": v for k, v in session.server_s.items()},
    }


def audit(size: int, repeats: int, neighbours: int = 16) -> dict[str, float]:
    """Sketching all masks of a vector, beside masking it; medians."""
    sketching = statistics.median(audit_once(size, neighbours) for _ in range(repeats))
    point = FixedPoint(21, 32)
    masking = statistics.median(mask_once(size, neighbours, point) for _ in range(repeats))
    return {
        "audit_s": sketching,
        "audit_ns": sketching / size / (neighbours + 1) * 1e9,
        "audit_mask_ratio": sketching / masking,
    }


def table(found: Mapping[str, Any]) -> None:
    """The figures for a person."""
    if "mask_ratio" in found:
        f = found
        print(f"{f['size']:,} parameters, 16 neighbours, 2 dropouts, one core (medians)")
        print(f"{'':24}{'Flower':>10}{'nomoat':>10}{'ratio':>8}")
        for name in ("mask", "unmask"):
            one, other = f[f"{name}_flower_s"], f[f"{name}_ours_s"]
            print(f"  {name + ', seconds':22}{one:10.3f}{other:10.3f}{f[name + '_ratio']:8.1f}")
        print(f"  {'mask, ours framed too':42}{f['mask_framed_ratio']:8.1f}")
        up = (f["bytes_flower_fraction"], f["bytes_fraction"])
        print(f"  {'bytes up / float32':22}{up[0]:10.4f}{up[1]:10.4f}{up[0] / up[1]:8.1f}")
        print(f"  {'… allowed':32}{f['bytes_allowed_fraction']:10.4f}")
        errors = (f["worst_error_flower"], f["worst_error_ours"])
        print(f"  {'worst error / clip':22}{errors[0]:10.1e}{errors[1]:10.1e}")
        print(
            f"  raw AES-128-CTR {f['keystream_GBps']:.2f} GB/s, masks applied at "
            f"{f['masking_GBps']:.2f} GB/s: {f['keystream_fraction']:.2f} of it; "
            f"with rounding, packing, hashing: {f['whole_step_fraction']:.2f}"
        )
    if "n1000_seconds" in found:
        f = found
        print(
            f"{f['n1000_participants']} volunteers × {f['n1000_size']:,}, k = "
            f"{f['n1000_neighbours']}, 20 % dropouts: {f['n1000_seconds']:.1f} s for everybody's "
            f"work on one core; {f['n1000_summed']} summed, worst error / clip "
            f"{f['n1000_worst_error']:.1e}"
        )
        for name in EXCHANGES:
            print(
                f"  {name:12} volunteer {f[f'n1000_client_{name}_s'] * 1e3:8.1f} ms   coordinator "
                f"{f[f'n1000_server_{name}_s']:7.2f} s + {f[f'n1000_server_{name} close_s']:.2f} s"
            )
    if "audit_ns" in found:
        print(
            f"audit: {found['audit_s']:.2f} s, {found['audit_ns']:.1f} ns per value and mask, "
            f"{found['audit_mask_ratio']:.1f} times masking"
        )
    if "costs" in found:
        print("\nwhat one participant and the coordinator pay at 1 M parameters (20 % dropouts):")
        print("mask, peers and bytes up grow with k; checking the roster and bytes down with n")
        print(f"{'n':>8}{'k':>6}{'mask':>9}{'peers':>9}{'roster':>9}{'up':>11}{'down':>11}", end="")
        print(f"{'coordinator':>13}")
        for row in found["costs"]:
            print(
                f"{row['participants']:8,}{row['neighbours']:6}{row['mask_s'] * 1e3:6.0f} ms"
                f"{row['peers_s'] * 1e3:6.0f} ms{row['roster_s'] * 1e3:6.0f} ms"
                f"{row['up_bytes'] / 1e6:8.2f} MB{row['down_bytes'] / 1e3:8.0f} kB"
                f"{row['server_s']:11.1f} s" + ("" if row["measured"] else "  extrapolated")
            )


def main() -> None:
    """Run the chosen parts and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--parts", default="flower,cost,session,audit")
    parser.add_argument("--size", type=int, default=10_000_000, help="parameters against Flower")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    parts = set(chosen.parts.split(","))
    if unknown := parts - {"flower", "cost", "session", "audit"}:
        parser.error(f"no part is called {sorted(unknown)[0]}")
    verify_each_time()
    found: dict[str, Any] = {}
    if "flower" in parts:
        found |= compare_with_flower(chosen.size, chosen.repeats)
    if "session" in parts:
        found |= thousand()
    if "audit" in parts:
        found |= audit(chosen.size, chosen.repeats)
    if "cost" in parts:
        found["costs"] = [vars(row) for row in costs(1_000_000, chosen.repeats)]
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        table(found)


if __name__ == "__main__":
    main()
