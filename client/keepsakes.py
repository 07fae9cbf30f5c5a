"""What a volunteer keeps to itself from round to round: it is never sent, and private on disk.

Its AdamW moments, its own B, or an adapter of its own, as the community's settings ask. One file
per round, so that a round that is begun again starts from what it started from the first time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nomoat.aggregation import lineage
from nomoat.aggregation.adapter import Adapter
from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.arrayfile import pack, unpack
from nomoat.keyfile import read_private, write_private
from nomoat.lora.moments import Moments


@dataclass(frozen=True)
class Keepsake:
    """Of one round: the trained modules and their places, moments, and a personal adapter."""

    round: int
    trained: Adapter
    modules: tuple[int, ...]
    moments: Moments | None = None
    personal: Adapter | None = None


class Keepsakes(Protocol):
    """Where they are kept."""

    def newest(self, before: int) -> Keepsake | None:
        """The newest of a round earlier than `before`."""

    def save(self, kept: Keepsake) -> None:
        """Keep it; what it replaces stays until the round after."""


@dataclass(frozen=True)
class DiskKeepsakes:
    """A folder with one file per round, at most two of them."""

    folder: Path

    def newest(self, before: int) -> Keepsake | None:
        """The newest of an earlier round; NomoatError if it is damaged."""
        rounds = [number for number in self._rounds() if number < before]
        return self._load(max(rounds)) if rounds else None

    def save(self, kept: Keepsake) -> None:
        """Keep it, and drop all but the newest of the earlier rounds."""
        adapters = {"trained": kept.trained, "personal": kept.personal}
        files = {k: lineage.to_file(a) for k, a in adapters.items() if a is not None}
        meta: dict[str, Any] = {
            "modules": list(kept.modules),
            "digests": {k: a.digest.hex() for k, a in adapters.items() if a is not None},
        }
        arrays: dict[str, Any] = {k: np.frombuffer(v, np.uint8) for k, v in files.items()}
        if kept.moments is not None:
            meta["steps"] = [kept.moments.steps_a, kept.moments.steps_b]
            arrays |= {"mean": kept.moments.mean, "square": kept.moments.square}
        write_private(self._path(kept.round), pack(meta, arrays))
        earlier = sorted(number for number in self._rounds() if number < kept.round)
        for number in earlier[:-1]:
            self._path(number).unlink(missing_ok=True)

    def _load(self, number: int) -> Keepsake:
        path = self._path(number)
        data = read_private(path, "what this volunteer keeps")
        try:
            meta, stored = unpack(data)
            adapters = {
                name: lineage.from_file(bytes(stored[name]), bytes.fromhex(digest), "keepsake")
                for name, digest in meta["digests"].items()
            }
            moments = None
            if "steps" in meta:
                moments = Moments(stored["mean"], stored["square"], *meta["steps"])
        except (ValueError, KeyError, RemoteProtocolError):
            raise NomoatError(f"{path} is damaged; delete it to go on") from None
        modules = tuple(meta["modules"])
        return Keepsake(number, adapters["trained"], modules, moments, adapters.get("personal"))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.safetensors"

    def _rounds(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = (re.fullmatch(r"(\d{7})\.safetensors", path.name) for path in self.folder.iterdir())
        return [int(name[1]) for name in names if name]
