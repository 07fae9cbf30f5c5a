"""A simulated volunteer's work: jobs for the shared pool, updates kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.data.split import Split
from nomoat.client.round.work import EvaluateWork, HeldUpdate, TrainWork
from nomoat.client.training import round_jobs
from nomoat.client.training.personal_state import PersonalStates
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob
from nomoat.lora.workers.pool import Pool
from nomoat.simulations.network.gathering import TrainingGathering
from nomoat.simulations.population import SimulatedVolunteer


@dataclass(frozen=True)
class PooledTrainer:
    """Trains and evaluates one member's rows in whichever worker is free."""

    member: SimulatedVolunteer
    pool: Pool
    personal_states: PersonalStates
    gathering: TrainingGathering | None = None

    def train(self, work: TrainWork) -> Trained:
        """The member's training in this round."""
        gathering, states = self.gathering, self.personal_states
        # Who trains an adapter of its own, too, gives two jobs, and a gathering waits for one.
        if gathering is None or work.task.settings.personal == "adapter":
            return round_jobs.train(work, self._split, states, self.pool.submit)
        return round_jobs.train(work, self._split, states, gathering.submit)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """The member's held-out losses."""
        return round_jobs.evaluate(work, self._split, self.personal_states, self.pool.submit)

    @property
    def _split(self) -> Split:
        member = self.member
        return Split(member.train, member.held_out, member.train_rows, member.held_out_rows)


@dataclass(frozen=True)
class NoUpdateStore:
    """A simulated machine has no disk of its own: its session keeps the update in memory."""

    def save(self, held: HeldUpdate) -> None:
        """Nothing to do."""

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Nothing to do."""

    def drop(self) -> None:
        """Nothing to do."""


def train_job(
    member: SimulatedVolunteer, adapter: Adapter, settings: TrainSettings, seed: bytes
) -> TrainJob:
    """Training on a member's rows."""
    return TrainJob(member.train, adapter.spec, adapter.vector, settings, seed)


def evaluate_job(
    member: SimulatedVolunteer, adapter: Adapter, settings: TrainSettings
) -> EvaluateJob:
    """Evaluation on a member's held-out rows."""
    return round_jobs.evaluate_job(member.held_out, adapter, settings)
