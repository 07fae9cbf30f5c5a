"""The federation as a Flower app on Flower's own simulation, which runs on Ray.

    NOMOAT_BENCHMARK_PLAN=plan.json NOMOAT_BENCHMARK_HANDS=nomoat python -m rivals.ray_run

Its best configuration on one machine: one processor per actor, as many as there are workers; the
driver imports no torch; no dashboard, log forwarding or telemetry; one flat array per adapter
instead of a record of tensors. Prints the losses.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from rivals.plan import Plan
from rivals.ray_clients import app as client_app


def server_app(plan: Plan, losses: list[float]) -> ServerApp:
    """FedAvg with equal weights; everyone trains and evaluates in every round."""
    app = ServerApp()
    everyone = len(plan.volunteers)

    def macro(contents: list[RecordDict], _weighted_by: str) -> MetricRecord:
        found: list[Any] = [content["metrics"]["loss"] for content in contents]
        losses.append(sum(found) / len(found))
        return MetricRecord({"loss": losses[-1]})

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            min_train_nodes=everyone,
            min_evaluate_nodes=everyone,
            min_available_nodes=everyone,
            weighted_by_key="weight",
            evaluate_metrics_aggr_fn=macro,
        )
        arrays = ArrayRecord([np.load(plan.initial)])
        before = strategy.configure_evaluate(0, arrays, ConfigRecord(), grid)
        strategy.aggregate_evaluate(0, grid.send_and_receive(before))
        strategy.start(grid, arrays, num_rounds=plan.rounds)

    return app


def main() -> None:
    """Run the simulation and print the losses; fails if any volunteer did."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    plan, losses = Plan.read(), list[float]()
    run_simulation(
        server_app(plan, losses),
        client_app,
        len(plan.volunteers),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": plan.workers,
                "include_dashboard": False,
                "log_to_driver": False,
                "logging_level": "error",
            },
        },
    )
    if len(losses) != plan.rounds + 1:
        sys.exit(f"{len(losses)} of {plan.rounds + 1} evaluations came back")
    sys.stdout.write(json.dumps({"losses": losses}) + "\n")


if __name__ == "__main__":
    main()
