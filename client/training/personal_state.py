"""Personal state that a volunteer keeps from round to round: never sent, private on disk.

Its AdamW moments, its own B, or an adapter of its own, as the community's settings ask. One file
per round, so that a round that is begun again starts from what it started from the first time. A
round that the coordinator abandoned leaves nothing: the next one begins with the same broadcast.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.training.moments import Moments
from nomoat.storage.arrays import pack, unpack
from nomoat.storage.private import read_private, write_private

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PersonalState:
    """The state after one round: trained modules and their places, moments, personal adapter.

    start: digest of the broadcast that was trained from.
    """

    round: int
    start: bytes
    trained: Adapter
    modules: tuple[int, ...]
    moments: Moments | None = None
    personal: Adapter | None = None


class PersonalStates(Protocol):
    """A port: keeps the personal states of one volunteer."""

    def newest(self, before: int, broadcast: bytes) -> PersonalState | None:
        """The newest of a round earlier than `before` that led to another adapter than `broadcast`.

        One that started from this very broadcast is of a round that was abandoned.
        """

    def save(self, kept: PersonalState) -> None:
        """Keep it; what it replaces stays until another round has been committed."""


@dataclass(frozen=True)
class DiskPersonalStates:
    """A folder with one file per round: the last, and the last that led to where that started."""

    folder: Path

    def newest(self, before: int, broadcast: bytes) -> PersonalState | None:
        """The newest of an earlier round that was committed; a damaged one is passed over."""
        for number in sorted(self._rounds(), reverse=True):
            kept = self._load(number) if number < before else None
            if kept is not None and kept.start != broadcast:
                return kept
        return None

    def save(self, kept: PersonalState) -> None:
        """Keep it, and drop all earlier rounds but what it went on from."""
        adapters = {"trained": kept.trained, "personal": kept.personal}
        files = {k: lineage.to_file(a) for k, a in adapters.items() if a is not None}
        meta: dict[str, Any] = {
            "modules": list(kept.modules),
            "start": kept.start.hex(),
            "digests": {k: a.digest.hex() for k, a in adapters.items() if a is not None},
        }
        arrays: dict[str, Any] = {k: np.frombuffer(v, np.uint8) for k, v in files.items()}
        if kept.moments is not None:
            meta["steps"] = [kept.moments.steps_a, kept.moments.steps_b]
            arrays |= {"mean": kept.moments.mean, "square": kept.moments.square}
        before = self.newest(kept.round, kept.start)
        write_private(self._path(kept.round), pack(meta, arrays))
        for number in self._rounds():
            if number < kept.round and (before is None or number != before.round):
                self._path(number).unlink(missing_ok=True)

    def _load(self, number: int) -> PersonalState | None:
        path = self._path(number)
        data = read_private(path, "personal state")
        try:
            meta, stored = unpack(data)
            adapters = {
                name: lineage.from_file(
                    bytes(stored[name]), bytes.fromhex(digest), "personal state"
                )
                for name, digest in meta["digests"].items()
            }
            moments = None
            if "steps" in meta:
                moments = Moments(stored["mean"], stored["square"], *meta["steps"])
            modules, start = tuple(meta["modules"]), bytes.fromhex(meta["start"])
        except (ValueError, KeyError, TypeError, RemoteProtocolError):
            log.warning("%s is damaged: what was kept from round %d is left out", path, number)
            return None
        trained, personal = adapters["trained"], adapters.get("personal")
        return PersonalState(number, start, trained, modules, moments, personal)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.safetensors"

    def _rounds(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = (re.fullmatch(r"(\d{7})\.safetensors", path.name) for path in self.folder.iterdir())
        return [int(name[1]) for name in names if name]
