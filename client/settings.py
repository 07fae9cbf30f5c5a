"""The settings a machine's owner has made for one community: settings.toml, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
import tomlkit.items
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.machine.limits_settings import HELP, MachineSettings
from nomoat.client.round.task_limits import TaskLimits
from nomoat.lora.device.present import check_names
from nomoat.storage.atomic import replacing
from nomoat.storage.settings import FileSettings
from nomoat.storage.settings import load as load_file


class VolunteerSettings(FileSettings):
    """The owner's settings for one community: flags, then NOMOAT_*, then the file."""

    model_config = SettingsConfigDict(env_prefix="NOMOAT_", extra="forbid", frozen=True)

    address: str = Field(max_length=260)
    name: str = Field(min_length=1, max_length=40)
    data: Path
    base: str = Field(max_length=4096)  # where this machine has the base model
    heldout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    heldout_data: Path | None = None
    device: str = Field("auto", max_length=40)
    poll_least: Annotated[float, Field(ge=0.01, le=3600)] = 1.0
    poll_most: Annotated[float, Field(ge=0.01, le=3600)] = 2.0
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    max_tokens_per_step: Annotated[int, Field(ge=8)] = 1 << 20
    max_adapter_values: Annotated[int, Field(ge=1)] = 1 << 28
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] | Literal["auto"] = MAX_RANK
    data_changes: Literal["refresh", "keep", "stop"] = "refresh"
    known_peers: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    known_days: Annotated[float, Field(ge=0, le=3650)] = 30.0
    min_participants: Annotated[int, Field(ge=0, le=10_000)] = 0
    repeats: Annotated[int, Field(ge=0, le=1_000)] = 2
    rounds_a_day: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    audit: bool = False
    show_software: bool = False  # join says so before it sets it
    desktop_notices: bool = False  # followed from the next start on
    machine: MachineSettings = Field(default_factory=MachineSettings)

    @field_validator("device")
    @classmethod
    def _device(cls, text: str) -> str:
        try:
            check_names(text)
        except UsageError as problem:
            raise ValueError(str(problem)) from None
        return text

    def limits(self, rank: int) -> TaskLimits:
        """The most a coordinator may ask; `rank`: what `auto` comes to on this machine."""
        return TaskLimits(
            self.max_steps, self.max_tokens_per_step, self.max_adapter_values, rank=rank
        )


COMMENTS = {
    "address": "where the coordinator is",
    "data": "your file or folder; it never leaves this machine",
    "data_changes": "if `data` is edited while rounds run: refresh (train on it), keep, stop",
    "heldout": "share of your rows kept for measuring, never trained on",
    "heldout_data": "file with rows to measure with; then all of `data` is trained on",
    "poll_least": "seconds between two looks for work when the line is not held open",
    "max_steps": "the most a round may ask of this machine",
    "known_peers": "take part only among so many others that this machine has known for known_days",
    "min_participants": "be summed among so many at least; 0: what the community said on joining",
    "repeats": "times a day a failed round may be repeated with other members",
    "show_software": "tell the coordinator which nomoat this is, and on which system",
    "rounds_a_day": "rounds a day this machine trains in at most; 0: what was agreed to on joining",
    "audit": "take part in sums that check the size of each update by a sketch of 64 numbers",
    "desktop_notices": "tell what needs you on this machine's desktop (needs desktop-notifier)",
    "rank": "modules of the adapter this machine trains at most, or auto: what its memory allows",
}


def _machine(machine: MachineSettings) -> tomlkit.items.Table:
    """The table [machine]: what was set, and the rest as comments to copy from."""
    table = tomlkit.table()
    for line in HELP.splitlines():
        table.add(tomlkit.comment(line))
    for key, value in machine.model_dump(mode="json", exclude_defaults=True).items():
        table[key] = value
    return table


def load(path: Path, **flags: Any) -> VolunteerSettings:
    """Read settings.toml; UsageError naming file and key if a value cannot be.

    flags: values that count more than the file's; None stands for none.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    return load_file(VolunteerSettings, path, **given)


def move(path: Path, address: str) -> None:
    """Write another address of the coordinator into settings.toml, and nothing else."""
    document = tomlkit.parse(path.read_text("utf-8"))
    document["address"] = address
    with replacing(path) as file:
        file.write(tomlkit.dumps(document).encode())


def want_notices(path: Path, wanted: bool) -> None:
    """Write the owner's word on desktop notices into settings.toml, and nothing else."""
    document = tomlkit.parse(path.read_text("utf-8"))
    if bool(document.get("desktop_notices", False)) == wanted:
        return
    document["desktop_notices"] = wanted
    with replacing(path) as file:
        file.write(tomlkit.dumps(document).encode())


def save(path: Path, settings: VolunteerSettings) -> None:
    """Write settings.toml; comments of an older one survive."""
    document = tomlkit.parse(path.read_text("utf-8") if path.exists() else "")
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"machine"})
    for key, value in values.items():
        if key in COMMENTS and key not in document:
            document.add(tomlkit.comment(COMMENTS[key]))
        document[key] = value
    if "machine" not in document:  # its keys are the owner's: nothing here changes them
        document.add("machine", _machine(settings.machine))
    with replacing(path) as file:
        file.write(tomlkit.dumps(document).encode())
