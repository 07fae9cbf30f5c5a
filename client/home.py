"""Where a volunteer's files are and what its owner has set.

    HOME/identity.key                      Ed25519, one for all communities
    HOME/communities/ID/settings.toml      flags > NOMOAT_* > this file > defaults
                        community.info     what the community said of itself, signed
                        node.key           P-384, for this community alone
                        roster.log         the roster as seen so far
                        version.rec, adapters/   the newest community adapter
                         held/              an update that waits for its aggregation, and a
                                            training that was laid down
                         kept/              what stays here from round to round (personal parts)
                         sent.jsonl, receipts/  the log of what left, and its receipts
                         volunteer.log      what went on, rotated
                        state.json         what this volunteer is doing, for `nomoat status`
                        orders.json        what its owner wants: pause, resume, finish

HOME is NOMOAT_HOME, or the platform's data folder. Several communities live side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import tomlkit
import tomlkit.items
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from nomoat.aggregation.errors import NomoatError, NotJoined, UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import CommunityInfo, community_id
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.aggregation.protocol.roster import Roster, SignedEntry, extend
from nomoat.client.machine.limits_settings import HELP, MachineSettings
from nomoat.client.round.session import TaskLimits
from nomoat.storage.atomic import replacing
from nomoat.storage.settings import FileSettings, load

ID_DIGITS = 16


class VolunteerSettings(FileSettings):
    """What the owner of this machine has set for one community."""

    model_config = SettingsConfigDict(env_prefix="NOMOAT_", extra="forbid", frozen=True)

    address: str = Field(max_length=260)
    name: str = Field(min_length=1, max_length=40)
    data: Path
    base: str = Field(max_length=400)  # where this machine has the base model
    heldout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    heldout_data: Path | None = None
    device: str = Field("auto", max_length=40)
    poll_least: Annotated[float, Field(ge=0.01, le=3600)] = 1.0
    poll_most: Annotated[float, Field(ge=0.01, le=3600)] = 2.0
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    max_tokens_per_step: Annotated[int, Field(ge=8)] = 1 << 20
    max_adapter_values: Annotated[int, Field(ge=1)] = 1 << 28
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] | Literal["auto"] = MAX_RANK
    machine: MachineSettings = Field(default_factory=MachineSettings)

    def limits(self, rank: int) -> TaskLimits:
        """The most a coordinator may ask; `rank`: what `auto` comes to on this machine."""
        return TaskLimits(
            self.max_steps, self.max_tokens_per_step, self.max_adapter_values, rank=rank
        )


COMMENTS = {
    "address": "where the coordinator is",
    "data": "your file or folder; it never leaves this machine",
    "heldout": "share of your rows kept for measuring, never trained on",
    "heldout_data": "file with rows to measure with; then all of `data` is trained on",
    "poll_least": "seconds between two looks for work when the line is not held open",
    "max_steps": "the most a round may ask of this machine",
    "rank": "modules of the adapter this machine trains at most, or auto: what its memory allows",
}


def _machine(allowance: MachineSettings) -> tomlkit.items.Table:
    """What was set, and the rest as comments to take up."""
    table = tomlkit.table()
    for line in HELP.splitlines():
        table.add(tomlkit.comment(line))
    for key, value in allowance.model_dump(mode="json", exclude_defaults=True).items():
        table[key] = value
    return table


@dataclass(frozen=True)
class Home:
    """A volunteer's folder."""

    root: Path

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Home:
        """NOMOAT_HOME, or the platform's data folder."""
        chosen = environment.get("NOMOAT_HOME")
        return cls(Path(chosen) if chosen else platformdirs.user_data_path("nomoat"))

    @property
    def identity(self) -> Path:
        """The identity key."""
        return self.root / "identity.key"

    def folder(self, public: bytes) -> CommunityFolder:
        """The folder of the community with this key, joined or not."""
        return CommunityFolder(self.root / "communities" / community_id(public).hex()[:ID_DIGITS])

    def joined(self) -> list[CommunityFolder]:
        """The communities this machine has joined, by id."""
        parent = self.root / "communities"
        folders = map(CommunityFolder, sorted(parent.iterdir()) if parent.is_dir() else [])
        return [folder for folder in folders if folder.settings.is_file()]

    def chosen(self, wanted: str | None) -> list[CommunityFolder]:
        """The community that is named, or all that were joined; NotJoined if there is none."""
        if wanted is None and (folders := self.joined()):
            return folders
        return [self.choose(wanted)]

    def choose(self, wanted: str | None) -> CommunityFolder:
        """The community named by (the start of) its id or its name, or the only one there is.

        NotJoined if there is none; UsageError if several fit.
        """
        folders = self.joined()
        if wanted is not None:
            folders = [p for p in folders if p.root.name.startswith(wanted) or p.name() == wanted]
        if not folders:
            what = f"no community {wanted!r} here" if wanted else "no community joined here"
            raise NotJoined(f"{what}; join one with: nomoat join LINK --data FILE")
        if len(folders) > 1:
            names = ", ".join(f"{p.root.name[:8]} ({p.name()})" for p in folders)
            raise UsageError(f"which community? --community one of: {names}")
        return folders[0]


@dataclass(frozen=True)
class CommunityFolder:
    """The folder of one community a volunteer belongs to."""

    root: Path

    @property
    def settings(self) -> Path:
        """settings.toml."""
        return self.root / "settings.toml"

    @property
    def log(self) -> Path:
        """What `nomoat run` wrote of its own accord."""
        return self.root / "volunteer.log"

    @property
    def node_key(self) -> Path:
        """The node key."""
        return self.root / "node.key"

    @property
    def held(self) -> Path:
        """Where an update waits."""
        return self.root / "held"

    @property
    def kept(self) -> Path:
        """What this volunteer keeps to itself between rounds."""
        return self.root / "kept"

    @property
    def checkpoint(self) -> Path:
        """A training laid down in the middle."""
        return self.held / "training.safetensors"

    @property
    def split(self) -> Path:
        """The owner's rows as training wants them."""
        return self.root / "shards"

    @property
    def lock(self) -> Path:
        """Held by the volunteer that is running."""
        return self.root / "running.lock"

    @property
    def state(self) -> Path:
        """What the running volunteer last said of itself."""
        return self.root / "state.json"

    def name(self) -> str:
        """The community's name."""
        return self.info().name

    def load(self, **flags: Any) -> VolunteerSettings:
        """The settings; UsageError naming file and key if one cannot be."""
        given = {key: value for key, value in flags.items() if value is not None}
        return load(VolunteerSettings, self.settings, **given)

    def save(self, settings: VolunteerSettings) -> None:
        """Write settings.toml; comments of an older one survive."""
        old = self.settings.read_text() if self.settings.exists() else ""
        document = tomlkit.parse(old)
        values = settings.model_dump(mode="json", exclude_none=True, exclude={"machine"})
        for key, value in values.items():
            if key in COMMENTS and key not in document:
                document.add(tomlkit.comment(COMMENTS[key]))
            document[key] = value
        if "machine" not in document:  # its keys are the owner's: nothing here changes them
            document.add("machine", _machine(settings.machine))
        with replacing(self.settings) as file:
            file.write(tomlkit.dumps(document).encode())

    def info(self) -> CommunityInfo:
        """What the community said of itself when we joined; NotJoined if there is none."""
        return wire.decode(wire.Packet(self._read("community.info")), CommunityInfo, str(self.root))

    def save_info(self, info: CommunityInfo) -> None:
        """Keep what the community said of itself."""
        self._write("community.info", wire.encode(info).head)

    def roster(self, public: bytes) -> Roster:
        """The roster as far as this machine has seen it, verified again from its file."""
        return extend(Roster.empty(public), self.entries())

    def entries(self) -> list[SignedEntry]:
        """The roster's entries on this machine's disk."""
        return self._entries()[0]

    def append_roster(self, entries: Iterable[SignedEntry]) -> None:
        """Keep further entries of the roster: 4 bytes of length, then the entry, each."""
        _, whole = self._entries()
        try:
            with self._log.open("r+b" if self._log.exists() else "wb") as file:
                file.truncate(whole)  # a crash may have left half an entry
                file.seek(whole)
                for entry in entries:
                    head = wire.encode(entry).head
                    file.write(len(head).to_bytes(4, "big") + head)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise NomoatError(f"cannot write {self._log}: {problem.strerror}") from None

    @property
    def _log(self) -> Path:
        return self.root / "roster.log"

    def _entries(self) -> tuple[list[SignedEntry], int]:
        """The whole entries in the log, and how many bytes they take."""
        data = self._log.read_bytes() if self._log.exists() else b""
        entries, at = [], 0
        while at + 4 <= len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            packet = wire.Packet(data[at + 4 : end])
            entries.append(wire.decode(packet, SignedEntry, str(self._log)))
            at = end
        return entries, at

    def version(self) -> SignedVersion | None:
        """The newest version record this machine has verified."""
        path = self.root / "version.rec"
        if not path.exists():
            return None
        return wire.decode(wire.Packet(path.read_bytes()), SignedVersion, str(path))

    def save_version(self, record: SignedVersion) -> None:
        """Keep the newest version record."""
        self._write("version.rec", wire.encode(record).head)

    def adapter(self, record: SignedVersion) -> Path:
        """Where the adapter of a version lies."""
        return self.root / "adapters" / f"{record.version.adapter.hex()}.adapter"

    def _read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise NotJoined(f"{self.root} is not a joined community; join it again") from None

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.root / name) as file:
            file.write(data)
