"""Baselines of a federation: each volunteer alone, and all data in one place."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, replace

from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.protocol.messages import MAX_LOCAL_STEPS, TrainSettings
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.workers.jobs import TrainJob
from nomoat.server.rounds.cohort import generator
from nomoat.server.rounds.records import macro
from nomoat.simulations.pooled_trainer import evaluate_job, train_job
from nomoat.simulations.population import SimulatedVolunteer
from nomoat.simulations.preparation import PreparedFederation
from nomoat.simulations.scenario import Scenario

MOST_SOLO = 32  # solo runs cost volunteers² evaluations: with more volunteers, a drawn sample


@dataclass(frozen=True)
class Baselines:
    """Macro-averaged held-out losses (nats per token), each after rounds × local steps.

    solo: volunteer → loss of the adapter it trains alone, on everyone's held-out rows.
    pooled: one training on everyone's rows together, for one volunteer's number of steps.
    """

    solo: dict[str, float]
    solo_losses: dict[str, dict[str, float]]
    pooled: float
    pooled_losses: dict[str, float]

    @property
    def solo_mean(self) -> float:
        """Mean over the volunteers that trained alone."""
        return macro(self.solo) or 0.0


def measure(scenario: Scenario, ground: PreparedFederation) -> Baselines:
    """Train and evaluate the baselines on the federation's own workers."""
    members = ground.population.members
    solo_jobs = {
        member.name: train_job(
            member,
            ground.initial,
            _settings(scenario, (member,)),
            scenario.seed_of(f"solo {member.name}"),
        )
        for member in _soloists(scenario, members)
    }
    pooled_job = TrainJob(
        ground.population.everyone,
        ground.initial.spec,
        ground.initial.vector,
        _settings(scenario, members),
        scenario.seed_of("pooled"),
    )
    pooled = ground.pool.submit(pooled_job)  # first: nothing can run beside the last long job
    trained = {name: ground.pool.submit(job) for name, job in solo_jobs.items()}
    asked = {
        name: _ask(scenario, ground, future.result().vector) for name, future in trained.items()
    }
    pooled_losses = _losses(_ask(scenario, ground, pooled.result().vector))
    solo_losses = {name: _losses(futures) for name, futures in asked.items()}
    return Baselines(
        {name: macro(losses) or 0.0 for name, losses in solo_losses.items()},
        solo_losses,
        macro(pooled_losses) or 0.0,
        pooled_losses,
    )


def _settings(scenario: Scenario, members: tuple[SimulatedVolunteer, ...]) -> TrainSettings:
    """As many steps in one go as one of these volunteers takes in all rounds (their mean)."""
    settings = scenario.chosen.train_settings()
    per_round = [
        scenario.local_epochs * math.ceil(member.train_rows / scenario.batch_size)
        or scenario.local_steps
        for member in members
    ]
    steps = scenario.rounds * round(sum(per_round) / len(per_round))
    return replace(
        settings,
        local_steps=min(steps, MAX_LOCAL_STEPS),
        local_epochs=0,
        prox=0.0,
        keep_moments=False,
        personal="none",
    )


def _soloists(
    scenario: Scenario, members: tuple[SimulatedVolunteer, ...]
) -> tuple[SimulatedVolunteer, ...]:
    if len(members) <= MOST_SOLO:
        return members
    drawn = generator(scenario.seed_of("soloists")).permutation(len(members))[:MOST_SOLO]
    return tuple(members[i] for i in sorted(drawn))


def _ask(
    scenario: Scenario, ground: PreparedFederation, vector: Vector
) -> dict[str, Future[MeasuredLoss]]:
    adapter = Adapter(ground.initial.spec, vector)
    settings = scenario.chosen.train_settings()
    return {
        member.name: ground.pool.submit(evaluate_job(member, adapter, settings))
        for member in ground.population.members
    }


def _losses(asked: dict[str, Future[MeasuredLoss]]) -> dict[str, float]:
    return {name: future.result().loss for name, future in asked.items()}
