"""What the owner of a community sets: community.toml, checked key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import SettingsConfigDict

from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.methods.composition import Choices, Personal
from nomoat.aggregation.methods.server_optimizer import Kind, ServerOptimizer
from nomoat.aggregation.protocol.messages import MAX_PROX, TrainSettings
from nomoat.server.community.membership_rules import Admission
from nomoat.server.rounds.learning_rate import Schedule
from nomoat.server.rounds.records import Federation
from nomoat.storage.settings import FileSettings

Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """A table of community.toml; a key nobody knows is a mistake, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CommunitySettings(Section):
    """Who the community is."""

    name: str = Field(min_length=1, max_length=80)
    about: Annotated[str, Field(max_length=2000)] = ""
    admission: Admission = Admission.OPEN


class BaseModelSettings(Section):
    """The base model, named by the content of its files."""

    model: str = Field(min_length=1, max_length=200)
    folder: Path  # where this machine has it
    license: Annotated[str, Field(max_length=80)] = ""
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class RoundSettings(Section):
    """How rounds run. Times are seconds."""

    method: str = "fedavg"
    min_volunteers: Annotated[int, Field(ge=2, le=10_000)] = 2
    min_reports: Annotated[int, Field(ge=0, le=10_000)] = 0  # 0: as many as min_volunteers
    fraction: Share = 1.0
    round_every: Annotated[float, Field(ge=0, le=30 * 86_400)] = 0.0
    max_rounds: Count = 100
    train_deadline: Seconds = 3600.0
    aggregate_deadline: Seconds = 300.0
    evaluate_deadline: Seconds = 600.0
    patience: Seconds = 120.0
    tolerance: Annotated[float, Field(ge=0, le=10)] = 0.05
    secure: bool = True
    allow_weak: bool = False
    seed: str = Field(pattern=r"^[0-9a-f]{64}$")
    personal: Personal = "none"
    server_optimizer: Kind = "plain"
    server_lr: Annotated[float, Field(ge=0, le=1e3)] = 0.0  # 0: the optimiser's usual one
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

    @property
    def least_reports(self) -> int:
        """Fewer valid reports than this abandon a round."""
        return max(2, self.min_reports) if self.min_reports else self.min_volunteers


class AdapterSettings(Section):
    """The adapter's shape, fixed when the community was made."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    targets: str = "all-linear"


class TrainingSettings(Section):
    """What one volunteer does in one round (aggregation/protocol/messages.py, TrainSettings)."""

    local_steps: Count = 12
    local_epochs: Annotated[int, Field(ge=0, le=100)] = 0
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    seq_len: Annotated[int, Field(ge=8, le=131_072)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-3
    weight_cap: Annotated[int, Field(ge=1, le=10**9)] = 1 << 20
    lr_schedule: Schedule = "constant"
    prox: Annotated[float, Field(ge=0, le=MAX_PROX)] = 0.0
    optimizer_state: Literal["reset", "keep"] = "reset"

    def settings(self, personal: Personal) -> TrainSettings:
        """As the protocol has it."""
        return TrainSettings(
            self.local_steps,
            self.local_epochs,
            self.batch_size,
            self.seq_len,
            self.learning_rate,
            self.weight_cap,
            prox=self.prox,
            keep_moments=self.optimizer_state == "keep",
            personal=personal,
        )


class ServerSettings(Section):
    """Where the coordinator listens and how it is reached from outside."""

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8443
    address: Annotated[str, Field(max_length=260)] = "localhost:8443"


class Settings(FileSettings):
    """All of community.toml."""

    model_config = SettingsConfigDict(
        env_prefix="NOMOAT_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    community: CommunitySettings
    base: BaseModelSettings
    adapter: AdapterSettings = AdapterSettings()
    rounds: RoundSettings
    training: TrainingSettings = TrainingSettings()
    server: ServerSettings = ServerSettings()

    def choices(self) -> Choices:
        """How adapters are aggregated; ranks are the volunteers' own affair (COMMENTS)."""
        return Choices(
            self.rounds.method,
            self.rounds.secure,
            optimizer=self.rounds.optimizer,
            keep_moments=self.training.optimizer_state == "keep",
            personal=self.rounds.personal,
            rank=self.adapter.rank,
        )

    @property
    def method(self) -> AnyMethod:
        """The method that runs; UsageError if the choices do not go together.

        Where a personal choice is a method of its own (local-B), it is not rounds.method.
        """
        return self.choices().check()

    def federation(self) -> Federation:
        """What the round driver runs; UsageError if its choices do not go together."""
        rounds = self.rounds
        return Federation(
            method=self.method.name,
            rounds=rounds.max_rounds,
            training=self.training.settings(rounds.personal),
            base_hash=bytes.fromhex(self.base.hash),
            seed=bytes.fromhex(rounds.seed),
            fraction=rounds.fraction,
            min_reports=rounds.least_reports,
            secure=rounds.secure,
            tolerance=rounds.tolerance,
            train_deadline_s=rounds.train_deadline,
            aggregate_deadline_s=rounds.aggregate_deadline,
            evaluate_deadline_s=rounds.evaluate_deadline,
            optimizer=rounds.optimizer,
            schedule=self.training.lr_schedule,
        )


COMMENTS = {
    "community": "Who you are. admission: open (an invitation is enough) or approve.",
    "base": "The base model every volunteer must have: `hash` is over its weights and tokenizer.",
    "adapter": "The adapter's shape; fixed when the community was made.",
    "rounds": (
        "A round opens when min_volunteers are online and round_every seconds have passed; fewer\n"
        "reports than min_reports (0: as many as min_volunteers) abandon it.\n"
        "secure: updates are masked, so that only their sum is ever seen; below 8 volunteers the "
        "mask is weak\nand both sides have to allow_weak.\n"
        "Times are seconds. patience: how long a volunteer may vanish before a round goes on "
        "without it.\nseed makes cohorts and shuffling reproducible; it is no secret.\n"
        "personal: none, local-B (only A is averaged) or adapter (each trains one more, for "
        "itself).\nserver_optimizer: plain, momentum, fedadam, fedyogi; server_lr 0 is its usual."
    ),
    "training": (
        "What each volunteer does in a round. lr_schedule (constant, cosine, warmup) runs over\n"
        "max_rounds; prox is FedProx's; optimizer_state: reset or keep AdamW's moments each round\n"
        "(under fedplora, volunteers of a lower rank train other modules each time and keep none)."
    ),
    "server": "address is what invitations name: it must be reachable from outside.",
}


def as_toml(settings: Settings) -> str:
    """community.toml with its comments."""
    document = tomlkit.document()
    document.add(tomlkit.comment("A nomoat community. NOMOAT_<TABLE>__<KEY> and flags go before."))
    for name, values in settings.model_dump(mode="json").items():
        table = tomlkit.table()
        for line in COMMENTS[name].splitlines():
            table.add(tomlkit.comment(line))
        for key, value in values.items():
            table.add(key, value)
        document.add(tomlkit.nl())
        document.add(name, table)
    return tomlkit.dumps(document)
