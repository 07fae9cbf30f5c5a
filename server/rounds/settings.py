"""The settings of a federation: one set with one set of defaults, wherever they are written.

A simulation's scenario, `community.toml` and the options of `nomoat simulate` and `nomoat init` are
made of these classes; the defaults of training are those of the protocol's TrainSettings. What
only a deployment has (deadlines, how many must be online) or only a simulation (dropout, how
data is shared out) stands with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.methods.composition import Choices, Personal
from nomoat.aggregation.methods.server_optimizer import Kind, ServerOptimizer
from nomoat.aggregation.protocol.messages import (
    MAX_BATCH,
    MAX_LOCAL_STEPS,
    MAX_PROX,
    MAX_RANK,
    MAX_SEQ_LEN,
    TrainSettings,
)
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.learning_rate import Schedule

USUAL = TrainSettings()
ALL_LINEAR = "all-linear"
FROM_DATA = 0  # as a sequence length
LEAST_SEQ_LEN = 8


@dataclass(frozen=True)
class Flags:
    """Names of a setting's option where there are more than its field's; in its annotation."""

    names: tuple[str, ...]


class SettingsTable(BaseModel):
    """Settings that go together; a key nobody knows is a mistake, not a comment."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterSettings(SettingsTable):
    """The adapter's shape, the same for everybody."""

    rank: Annotated[int, Field(ge=1, le=MAX_RANK, description="The community's.")] = 8
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    target_modules: Annotated[
        tuple[str, ...],
        Field(description="Comma-separated, or all-linear."),
        Flags(("--target-modules", "--targets")),
    ] = (ALL_LINEAR,)

    @model_validator(mode="before")
    @classmethod
    def _renamed_targets(cls, values: Any) -> Any:
        return renamed(values, "targets", "target_modules")

    @field_validator("target_modules", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @property
    def targets(self) -> tuple[str, ...] | Literal["all-linear"]:
        """As lora/model/targets.py takes them."""
        return "all-linear" if self.target_modules == (ALL_LINEAR,) else self.target_modules


class TrainingSettings(SettingsTable):
    """One volunteer's training in one round (aggregation/protocol/messages.py, TrainSettings)."""

    local_steps: Annotated[int, Field(ge=1, le=MAX_LOCAL_STEPS)] = USUAL.local_steps
    local_epochs: Annotated[int, Field(ge=0, le=100, description="Instead of steps.")] = (
        USUAL.local_epochs
    )
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)] = USUAL.batch_size
    seq_len: Annotated[
        int,
        Field(ge=0, le=MAX_SEQ_LEN, description="Tokens of a row; 0: what its data needs."),
    ] = FROM_DATA
    learning_rate: Annotated[
        float | None,
        Field(gt=0, le=10, description="Else what suits the model's width."),
        Flags(("--learning-rate", "--lr")),
    ] = None
    lr_schedule: Annotated[
        Schedule, Field(description="constant, cosine or warmup, over the rounds.")
    ] = "constant"
    prox: Annotated[
        float, Field(ge=0, le=MAX_PROX, description="FedProx μ: pull towards the broadcast.")
    ] = USUAL.prox
    optimizer_state: Annotated[
        Literal["reset", "keep"], Field(description="reset or keep AdamW's moments each round.")
    ] = "reset"

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, values: Any) -> Any:
        """Read settings of before: lr, and a cap on weights that volunteers no longer have."""
        return renamed(without(values, "weight_cap"), "lr", "learning_rate")

    @field_validator("seq_len")
    @classmethod
    def _long_enough(cls, value: int) -> int:
        if value != FROM_DATA and value < LEAST_SEQ_LEN:
            raise ValueError(f"give {LEAST_SEQ_LEN} tokens or more, or 0 for what the data needs")
        return value

    def settings(self, personal: Personal) -> TrainSettings:
        """As the protocol has it; a length or rate that was left open is the usual one."""
        return TrainSettings(
            self.local_steps,
            self.local_epochs,
            self.batch_size,
            self.seq_len or USUAL.seq_len,
            self.learning_rate or USUAL.learning_rate,
            prox=self.prox,
            keep_moments=self.optimizer_state == "keep",
            personal=personal,
        )


class ServerOptimizerSettings(SettingsTable):
    """The server optimiser, through which the mean update goes (server_optimizer.py)."""

    server_optimizer: Annotated[Kind, Field(description="plain, momentum, fedadam or fedyogi.")] = (
        "plain"
    )
    server_lr: Annotated[
        float, Field(ge=0, le=1e3, description="0: 1, or 0.01 for an adaptive optimiser.")
    ] = 0.0
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    server_tau: Annotated[float, Field(gt=0, le=1e3)] = 1e-3

    @property
    def optimizer(self) -> ServerOptimizer:
        """The server optimiser; UsageError for a parameter it does not have."""
        return ServerOptimizer.of(
            self.server_optimizer,
            self.server_lr or None,
            self.server_momentum,
            (self.server_beta1, self.server_beta2),
            self.server_tau,
        )


class RoundSettings(ServerOptimizerSettings):
    """The course of a round, and how updates are aggregated."""

    method: Annotated[
        str,
        Field(
            description="fedavg, ffa, rolora, fedsvd, fedrot, fedplora, fedask; without masks also "
            "flora, flexlora, fedex."
        ),
    ] = "fedavg"
    fraction: Annotated[float, Field(gt=0, le=1, description="Part of the volunteers asked.")] = 1.0
    min_reports: Annotated[
        int, Field(ge=0, le=10_000, description="Fewer valid reports abandon a round.")
    ] = 2
    secure: Annotated[bool, Field(description="Mask every update.")] = True
    clip: Annotated[
        float,
        Field(ge=0, le=1e6, description="Bound on each value of an update; 0: what it can reach."),
    ] = 0.0
    norm_bound: Annotated[
        float,
        Field(ge=0, le=1e6, description="Bound on an update's L2 norm; 0: learned from own rows."),
    ] = 0.0
    audit: Annotated[
        bool, Field(description="Check the size of masked updates by sketches; off by default.")
    ] = False
    sessions: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="While masked sums fail: so many a round, over random parts of at least "
            "min_reports; 1: one over all.",
        ),
    ] = 1
    robust: Annotated[
        float,
        Field(
            ge=0,
            lt=0.5,
            description="Part of the volunteers a mean without masks bears lies of; 0: none.",
        ),
    ] = 0.0
    tolerance: Annotated[
        float,
        Field(ge=0, le=10, description="Relative rise of loss accepted; 0: what noise explains."),
    ] = 0.0
    personal: Annotated[
        Personal, Field(description="none, local-B or adapter: what stays at home.")
    ] = "none"

    @property
    def least_reports(self) -> int:
        """Fewer valid reports than this abandon a round."""
        return self.min_reports


@dataclass(frozen=True)
class FederationSettings:
    """The whole set, from wherever its tables were read. rounds: how many there are in all.

    mixed_ranks: it is known that some volunteers train fewer modules than the adapter has.
    """

    adapter: AdapterSettings
    training: TrainingSettings
    round: RoundSettings
    rounds: int
    mixed_ranks: bool = False

    def choices(self) -> Choices:
        """The choices of how adapters are aggregated."""
        return Choices(
            self.round.method,
            self.round.secure,
            self.mixed_ranks,
            self.round.optimizer,
            self.training.optimizer_state == "keep",
            self.round.personal,
            self.adapter.rank,
            self.round.audit,
            self.round.robust,
            self.round.sessions,
        )

    def method(self) -> AnyMethod:
        """The method that runs; UsageError if the choices do not go together.

        Where a personal choice is a method of its own (local-B), it is not round.method.
        """
        return self.choices().check()

    def train_settings(self) -> TrainSettings:
        """A volunteer's part of them, as the protocol has it."""
        return self.training.settings(self.round.personal)

    def federation(self, base_hash: bytes, seed: bytes) -> Federation:
        """The federation the coordinator runs; UsageError if the choices do not go together.

        base_hash: of the base model. seed: 32 bytes. Without deadlines, which only a deployment
        has.
        """
        chosen = self.round
        return Federation(
            method=self.method().name,
            rounds=self.rounds,
            training=self.train_settings(),
            base_hash=base_hash,
            seed=seed,
            fraction=chosen.fraction,
            min_reports=chosen.least_reports,
            secure=chosen.secure,
            clip=chosen.clip or None,
            norm_bound=chosen.norm_bound or None,
            audit=chosen.audit,
            sessions=chosen.sessions,
            robust=chosen.robust,
            tolerance=chosen.tolerance or None,
            optimizer=chosen.optimizer,
            schedule=self.training.lr_schedule,
        )


def without(values: Any, gone: str) -> Any:
    """Settings less one that there was once, and that means nothing any more."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if name != gone}


def renamed(values: Any, old: str, new: str) -> Any:
    """Settings in which `old` stands under its new name, unless that is there, too."""
    if not isinstance(values, dict) or old not in values:
        return values
    kept = {name: value for name, value in values.items() if name != old}
    return {new: values[old], **kept}
