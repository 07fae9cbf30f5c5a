"""A simulated federation as it is asked for: every setting, its default and its bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from nomoat.aggregation.errors import UsageError
from nomoat.lora.data.files.listing import shown
from nomoat.lora.data.layouts.tools import has_half_a_pair
from nomoat.server.rounds.cohort import seed_of
from nomoat.server.rounds.settings import (
    AdapterSettings,
    FederationSettings,
    RoundSettings,
    SettingsTable,
    TrainingSettings,
)
from nomoat.simulations.adversaries.kinds import parse as adversary
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.ranks import most, parse


class DataSettings(SettingsTable):
    """The base model, and whose rows are whose."""

    model: Annotated[
        str, Field(description="Hugging Face folder or hub id, pocket, or smollm2.")
    ] = POCKET
    data: Annotated[str, Field(description="Data file or folder, or pocket.")] = POCKET
    by: Annotated[str | None, Field(description="One volunteer per value of this field.")] = None
    volunteers: Annotated[
        int | None, Field(ge=2, le=100_000, description="How many (with --by: the largest).")
    ] = None
    partition: Annotated[str, Field(description="iid or dirichlet:ALPHA.")] = "iid"
    label: Annotated[str | None, Field(description="Field that dirichlet skews.")] = None
    allow_dropping: Annotated[
        bool, Field(description="Go on if over 20 % of the rows cannot be used.")
    ] = False
    eval_fraction: Annotated[
        float, Field(gt=0, lt=1, description="Part of each volunteer's rows held out.")
    ] = 0.2
    eval_rows: Annotated[int, Field(ge=1, description="Held-out rows used, at most.")] = 64
    public_rows: Annotated[
        int, Field(ge=0, le=100_000, description="Rows of the coordinator's own, as init --eval.")
    ] = 0


class Scenario(DataSettings, AdapterSettings, TrainingSettings, RoundSettings):
    """One federation. Losses it leads to are nats per trained token; seeds make it repeatable."""

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 10
    ranks: Annotated[
        str | None, Field(description="Volunteers': 4,8,16 or 4:0.5,8:0.3,16:0.2.")
    ] = None
    min_reports: Annotated[
        int, Field(ge=1, le=100_000, description="Fewer valid reports abandon a round.")
    ] = 2
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Probability to vanish in a round.")
    ] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    adversary: Annotated[
        str | None, Field(description="KIND:SHARE of volunteers that lie, as backdoor:0.2.")
    ] = None
    baselines: Annotated[bool, Field(description="Also alone and pooled.")] = False

    @field_validator("adversary")
    @classmethod
    def _known_adversary(cls, value: str | None) -> str | None:
        if value is not None:
            adversary(value)
        return value

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
        self.chosen.method()
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
    def chosen(self) -> FederationSettings:
        """The set as a deployment has it, too."""
        mixed = self.ranks is not None and any(rank < self.rank for rank in parse(self.ranks))
        return FederationSettings(self, self, self, self.rounds, mixed)

    def seed_of(self, label: str) -> bytes:
        """32 bytes for one purpose, from the scenario's seed."""
        return seed_of(self.seed, label)


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
    for name in ("data", "model"):
        if has_half_a_pair(str(settings.get(name, ""))):  # how Python holds a byte that is not
            raise UsageError(f"--{name}: {shown(settings[name])} is no UTF-8 name; rename it")
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
