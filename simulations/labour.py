"""How a simulated volunteer works: jobs for the shared pool, updates kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.aggregation.adapter import Adapter
from nomoat.aggregation.messages import TrainSettings
from nomoat.aggregation.secagg.parameters import Mark
from nomoat.client import work as work_of
from nomoat.client.keepsakes import Keepsakes
from nomoat.client.session import EvaluateWork, Held, TrainWork
from nomoat.client.work import Rows
from nomoat.lora.jobs import EvaluateJob, TrainJob
from nomoat.lora.pool import Pool
from nomoat.lora.train import Trained
from nomoat.simulations.population import Member


@dataclass(frozen=True)
class PooledLabour:
    """Trains and evaluates one member's rows in whichever worker is free."""

    member: Member
    pool: Pool
    keepsakes: Keepsakes

    def train(self, work: TrainWork) -> Trained:
        """The member's training in this round."""
        return work_of.train(work, self._rows, self.keepsakes, self.pool.submit)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """The member's held-out losses."""
        return work_of.evaluate(work, self._rows, self.keepsakes, self.pool.submit)

    @property
    def _rows(self) -> Rows:
        return Rows(self.member.train, self.member.held_out)


@dataclass(frozen=True)
class NoVault:
    """A simulated machine has no disk of its own: its session keeps the update in memory."""

    def save(self, held: Held) -> None:
        """Nothing to do."""

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Nothing to do."""


def train_job(member: Member, adapter: Adapter, settings: TrainSettings, seed: bytes) -> TrainJob:
    """Training on a member's rows."""
    return TrainJob(member.train, adapter.spec, adapter.vector, settings, seed)


def evaluate_job(member: Member, adapter: Adapter, settings: TrainSettings) -> EvaluateJob:
    """Evaluation on a member's held-out rows."""
    return work_of.evaluate_job(member.held_out, adapter, settings)
