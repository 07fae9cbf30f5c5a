"""What a simulated federation is: every setting, its default and its bounds, in one place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.composition import Choices, Personal
from nomoat.aggregation.methods.server_optimizer import Kind, ServerOptimizer
from nomoat.aggregation.protocol.messages import (
    MAX_BATCH,
    MAX_LOCAL_STEPS,
    MAX_PROX,
    MAX_RANK,
    MAX_SEQ_LEN,
)
from nomoat.server.rounds.learning_rate import Schedule
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.ranks import most, parse

Fraction = Annotated[float, Field(gt=0, le=1)]


class Scenario(BaseModel):
    """One federation. Losses it leads to are nats per trained token; seeds make it repeatable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(description="Hugging Face folder or hub id, or 'pocket'")] = POCKET
    data: Annotated[str, Field(description="data file or folder, or 'pocket'")] = POCKET
    by: Annotated[str | None, Field(description="one volunteer per value of this field")] = None
    volunteers: Annotated[int | None, Field(ge=2, le=100_000)] = None
    partition: str = "iid"
    label: Annotated[str | None, Field(description="field that dirichlet:α skews")] = None

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 10
    local_steps: Annotated[int, Field(ge=1, le=MAX_LOCAL_STEPS)] = 12
    local_epochs: Annotated[int, Field(ge=0, le=100)] = 0
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)] = 8
    seq_len: Annotated[int, Field(ge=8, le=MAX_SEQ_LEN)] = 128
    lr: Annotated[float, Field(gt=0, le=10)] = 5e-3

    lr_schedule: Annotated[Schedule, Field(description="over the global rounds")] = "constant"
    prox: Annotated[float, Field(ge=0, le=MAX_PROX, description="FedProx μ")] = 0.0
    optimizer_state: Literal["reset", "keep"] = "reset"

    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] = 8
    ranks: Annotated[str | None, Field(description="4,8,16 or 4:0.5,8:0.3,16:0.2")] = None
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    target_modules: tuple[str, ...] = ("all-linear",)

    method: str = "fedavg"
    personal: Annotated[Personal, Field(description="what stays with the volunteer")] = "none"
    server_optimizer: Kind = "plain"
    server_lr: Annotated[float | None, Field(gt=0, le=1e3)] = None
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    server_tau: Annotated[float, Field(gt=0, le=1e3)] = 1e-3
    fraction: Fraction = 1.0
    min_reports: Annotated[int, Field(ge=1)] = 2
    # One token of 10⁹ is 1e-9, the least weight a report may have.
    weight_cap: Annotated[int, Field(ge=1, le=10**9, description="tokens")] = 65_536
    secure: bool = True
    clip: Annotated[float | None, Field(gt=0, le=1e6)] = None
    tolerance: Annotated[float, Field(ge=0, description="relative loss rise accepted")] = 0.05
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    eval_fraction: Annotated[float, Field(gt=0, lt=1, description="held-out part of rows")] = 0.2
    eval_rows: Annotated[int, Field(ge=1, description="held-out rows used per volunteer")] = 64
    baselines: bool = False

    @field_validator("partition")
    @classmethod
    def _known_partition(cls, value: str) -> str:
        parse_partition(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _rank_of_ranks(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ranks may be a list in TOML; the community has the largest, unless told otherwise."""
        ranks = values.get("ranks")
        if isinstance(ranks, list | tuple):
            values = {**values, "ranks": ",".join(map(str, ranks))}
        if values.get("ranks") is not None and values.get("rank") is None:
            values = {**values, "rank": most(str(values["ranks"]))}
        return values

    @field_validator("ranks")
    @classmethod
    def _known_ranks(cls, value: str | None) -> str | None:
        if value is not None:
            parse(value)
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self.choices.check()
        return self

    @model_validator(mode="after")
    def _sums_hide(self) -> Self:
        if self.secure and self.min_reports < 2:
            raise UsageError(
                f"--min-reports {self.min_reports}: secure aggregation needs at least 2, since a "
                "sum of one hides nothing; or add --no-secure"
            )
        return self

    @property
    def targets(self) -> tuple[str, ...] | Literal["all-linear"]:
        """What lora.spec.new_spec takes."""
        return "all-linear" if self.target_modules == ("all-linear",) else self.target_modules

    @property
    def choices(self) -> Choices:
        """How adapters are aggregated."""
        return Choices(
            self.method,
            self.secure,
            self.ranks is not None and any(r < self.rank for r in parse(self.ranks)),
            self.optimizer,
            self.optimizer_state == "keep",
            self.personal,
            self.rank,
        )

    @property
    def optimizer(self) -> ServerOptimizer:
        """The server optimiser; UsageError for a parameter it does not have."""
        return ServerOptimizer.of(
            self.server_optimizer,
            self.server_lr,
            self.server_momentum,
            (self.server_beta1, self.server_beta2),
            self.server_tau,
        )


def parse_partition(text: str) -> float | None:
    """None for "iid", α for "dirichlet:α"; UsageError for anything else."""
    if text == "iid":
        return None
    kind, _, value = text.partition(":")
    try:
        alpha = float(value)
    except ValueError:
        alpha = 0.0
    if kind != "dirichlet" or not 0 < alpha < float("inf"):
        raise UsageError(
            f"--partition {text!r}: give iid or dirichlet:ALPHA, such as dirichlet:0.3"
        )
    return alpha


def resolve(file: Path | None, given: dict[str, Any]) -> Scenario:
    """Defaults, then the TOML file, then the command line's; UsageError if one is wrong."""
    settings = _read(file) if file else {}
    settings |= {name: value for name, value in given.items() if value is not None}
    try:
        return Scenario.model_validate(settings)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = f"{file}: " if file else ""
        name = ".".join(map(str, first["loc"])) or "settings"
        raise UsageError(f"{where}{name.replace('_', '-')}: {first['msg']}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist: give a scenario in TOML") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{file} cannot be read: {problem}") from None
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"{file}: {problem}") from None
    found = settings.get("scenario", settings)
    return {name.replace("-", "_"): value for name, value in found.items()}
