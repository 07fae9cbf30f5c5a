"""The layout of a volunteer's files: one home, and in it a folder for each community.

    HOME/identity.key                      Ed25519, one for all communities
    HOME/kept.json                         rows that look secret and are trained on all the same
    HOME/communities/ID/settings.toml      flags > NOMOAT_* > this file > defaults
                        community.info     what the community said of itself, signed
                        node.key           P-384, for this community alone
                        roster.log         the roster as far as it was seen
                        roster.seen        when its entries were first seen here
                        version.rec, adapters/   the newest community adapter
                        shards/            the owner's rows, split into training and held out
                        held/              an update that waits for its aggregation, and the
                                           checkpoint of a training job that was interrupted
                        kept/              personal state, which stays here from round to round,
                                           and a private adapter (private.safetensors)
                        sent.jsonl, receipts/    the log of what left, and its receipts
                        volunteer.log      what went on, rotated
                        state.json         the volunteer's status, for `nomoat status`
                        now.json           figures of a training under way, for its page
                        orders.json        what its owner wants: pause, resume, finish

HOME is NOMOAT_HOME, or the platform's data folder. Several communities live side by side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from nomoat.aggregation.errors import NotJoined, RemoteProtocolError, UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import CommunityInfo, community_id
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys, KeyChanges, opened
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.client import settings as settings_file
from nomoat.client.settings import VolunteerSettings
from nomoat.storage.atomic import replacing
from nomoat.storage.private import keep_to_owner

ID_DIGITS = 16
OURS = ("*.key", "*.json", "*.jsonl")  # beside folders, what lies in a home


@dataclass(frozen=True)
class Home:
    """A volunteer's folder."""

    root: Path

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Home:
        """NOMOAT_HOME, or the platform's data folder."""
        chosen = environment.get("NOMOAT_HOME")
        return cls(Path(chosen) if chosen else platformdirs.user_data_path("nomoat"))

    @classmethod
    def opened(cls) -> Home:
        """The same, to be written to: it becomes its owner's alone, with all of ours in it."""
        home = cls.find()
        files = (path for ending in OURS for path in home.root.glob(ending))
        keep_to_owner(home.root, (*files, home.root / "communities", home.root / "flower"))
        return home

    @property
    def identity(self) -> Path:
        """The identity key."""
        return self.root / "identity.key"

    def folder(self, public: bytes) -> CommunityFolder:
        """The folder of the community that began with this key, joined or not."""
        return CommunityFolder(self.root / "communities" / community_id(public).hex()[:ID_DIGITS])

    def folder_of(self, public: bytes) -> CommunityFolder:
        """The folder of the community that has, or once had, this key."""
        found = (folder for folder in self.joined() if folder.keys().holds(public))
        return next(found, self.folder(public))

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
            folders = [f for f in folders if f.root.name.startswith(wanted) or f.name() == wanted]
        if not folders:
            what = f"no community {wanted!r} here" if wanted else "no community joined here"
            raise NotJoined(f"{what}; join one with: nomoat join LINK --data FILE")
        if len(folders) > 1:
            names = ", ".join(f"{f.root.name[:8]} ({f.name()})" for f in folders)
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
        """The log of `nomoat run`, rotated."""
        return self.root / "volunteer.log"

    @property
    def node_key(self) -> Path:
        """The node key."""
        return self.root / "node.key"

    @property
    def held(self) -> Path:
        """The folder of the update that waits for its aggregation."""
        return self.root / "held"

    @property
    def personal_states(self) -> Path:
        """The folder of what this volunteer keeps to itself from round to round."""
        return self.root / "kept"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of a training job that was interrupted."""
        return self.held / "training.safetensors"

    @property
    def split(self) -> Path:
        """The folder of the owner's rows, split into training and held out."""
        return self.root / "shards"

    @property
    def lock(self) -> Path:
        """Held by the volunteer that is running."""
        return self.root / "running.lock"

    @property
    def status(self) -> Path:
        """The running volunteer's status."""
        return self.root / "state.json"

    def name(self) -> str:
        """The community's name, as it may be shown."""
        return one_line(self.info().name)

    def load(self, **flags: Any) -> VolunteerSettings:
        """The settings; UsageError naming file and key if one cannot be."""
        return settings_file.load(self.settings, **flags)

    def save(self, settings: VolunteerSettings) -> None:
        """Write settings.toml; comments of an older one survive."""
        settings_file.save(self.settings, settings)

    def info(self) -> CommunityInfo:
        """The community as it described itself when we joined; NotJoined if there is none."""
        try:
            head = (self.root / "community.info").read_bytes()
        except FileNotFoundError:
            raise NotJoined(f"{self.root} is not a joined community; join it again") from None
        return wire.decode(wire.Packet(head), CommunityInfo, str(self.root))

    def keys(self) -> CommunityKeys:
        """The community's keys as far as this machine has followed them, each change verified."""
        path = self.root / "keys.rec"
        try:
            told = wire.decode(wire.Packet(path.read_bytes()), KeyChanges, str(path))
        except FileNotFoundError:
            return CommunityKeys(self.info().public)
        return opened(told, str(path))

    def save_info(self, info: CommunityInfo) -> None:
        """Keep the community's description of itself."""
        self._write("community.info", wire.encode(info).head)

    def version(self) -> SignedVersion | None:
        """The newest version record this machine has verified; a damaged one is fetched again."""
        path = self.root / "version.rec"
        try:
            return wire.decode(wire.Packet(path.read_bytes()), SignedVersion, str(path))
        except (OSError, RemoteProtocolError):
            return None

    def save_version(self, record: SignedVersion) -> None:
        """Keep the newest version record."""
        self._write("version.rec", wire.encode(record).head)

    def adapter(self, record: SignedVersion) -> Path:
        """The file of a version's adapter."""
        return self.root / "adapters" / f"{record.version.adapter.hex()}.adapter"

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.root / name) as file:
            file.write(data)
