"""Files a volunteer must not lose: the update that waits for its aggregation, and session marks.

Both are private (an update tells about the data it was trained on) and whole or absent.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.methods.base import Factors, LocalStart
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import Ready, TrainTask, task_digest
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.round.work import HeldUpdate
from nomoat.storage.arrays import pack, unpack
from nomoat.storage.atomic import appending
from nomoat.storage.private import PRIVATE, read_private, write_private

log = logging.getLogger(__name__)

PARTS = ("broadcast", "adapter", "frozen", "trained")


@dataclass(frozen=True)
class DiskUpdateStore:
    """A folder for one community: update.safetensors and marks.jsonl.

    random: so many bytes that nobody can guess.
    """

    folder: Path
    random: Callable[[int], bytes] = os.urandom

    @property
    def _update(self) -> Path:
        return self.folder / "update.safetensors"

    @property
    def _marks(self) -> Path:
        return self.folder / "marks.jsonl"

    @property
    def _chance(self) -> Path:
        return self.folder / "chance"

    def save(self, held: HeldUpdate) -> None:
        """Keep `held` in place of what was kept; on disk when this returns."""
        local = held.local
        adapters = dict(
            zip(PARTS, (local.broadcast, local.adapter, local.frozen, held.trained), strict=True)
        )
        meta = {
            "round": held.round,
            "method": held.method,
            "version": held.version.hex(),
            "modules": list(local.modules),
            "factors": asdict(local.factors),
            "task": held.task.hex(),
            "ready": None if held.ready is None else asdict(held.ready),
            "digests": {k: a.digest.hex() for k, a in adapters.items() if a is not None},
        }
        # Broadcast and start are often one adapter: it is written once.
        unique = {a.digest.hex(): a for a in adapters.values() if a is not None}
        files = {k: np.frombuffer(lineage.to_file(a), np.uint8) for k, a in unique.items()}
        write_private(self._update, pack(meta, files))
        (self.folder / "training.safetensors").unlink(missing_ok=True)  # its checkpoint

    def load(self) -> HeldUpdate | None:
        """Read the update that was kept; one that is damaged is deleted, and trained again."""
        if not self._update.exists():
            return None
        data = read_private(self._update, "stored update")
        try:
            meta, stored = unpack(data)
            kept = {
                name: lineage.from_file(
                    bytes(stored[digest]), bytes.fromhex(digest), "stored update"
                )
                for name, digest in meta["digests"].items()
            }
            return _held(meta, kept)
        except (ValueError, KeyError, TypeError, RemoteProtocolError):
            log.warning("%s is damaged, and deleted: its round is trained again", self._update)
            self._update.unlink()
            return None

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Append marks; on disk when this returns."""
        if not marks:
            return
        lines = "".join(json.dumps(_row(mark)) + "\n" for mark in marks)
        whole = self._marks.read_bytes().rpartition(b"\n")[:2] if self._marks.exists() else ()
        with appending(self._marks, sum(map(len, whole)), PRIVATE) as file:
            file.write(lines.encode())

    def marks(self) -> tuple[Mark, ...]:
        """All marks; a last line cut short by a crash was never answered upon, and is dropped.

        A diary is begun when this machine joins: one that is missing or empty was lost, and says so
        (docs/protocol.md §19.5).
        """
        data = self._marks.read_bytes() if self._marks.exists() else b""
        found = [mark for line in data.split(b"\n")[:-1] if (mark := _mark(line)) is not None]
        return tuple(found) or (Mark("lost", b"", 0, 0),)

    def begin(self) -> None:
        """Begin the diary of a machine that has just joined."""
        if not self._marks.exists():
            self.mark((Mark("begun", b"", 0, 0),))

    def drop(self) -> None:
        """Delete the update: it has left, and enters no other sum."""
        self._update.unlink(missing_ok=True)
        self._chance.unlink(missing_ok=True)

    def draw(self, task: TrainTask) -> bytes:
        """32 bytes from the operating system for a task's training, the same until `drop`.

        They are kept, so that a run that was interrupted is resumed after a restart.
        """
        name = task_digest(task)
        kept = read_private(self._chance, "kept randomness") if self._chance.exists() else b""
        if len(kept) != 2 * len(name) or kept[: len(name)] != name:
            kept = name + self.random(len(name))
            write_private(self._chance, kept)
        return kept[len(name) :]


def _row(mark: Mark) -> dict[str, object]:
    fields = asdict(mark)
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}


def _mark(line: bytes) -> Mark | None:
    """The mark in a line; None if it is none."""
    try:
        row = json.loads(line)
        return Mark(
            row["kind"],
            bytes.fromhex(row["session"]),
            row["round"],
            row["exchange"],
            bytes.fromhex(row.get("version", "")),
            bytes.fromhex(row.get("adapter", "")),
            bytes.fromhex(row.get("cohort", "")),
            row.get("at", 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _held(meta: dict[str, Any], kept: dict[str, Adapter]) -> HeldUpdate:
    local = LocalStart(
        kept["broadcast"],
        kept["adapter"],
        kept.get("frozen"),
        tuple(meta["modules"]),
        Factors(**meta["factors"]),
    )
    version = bytes.fromhex(meta.get("version", ""))
    ready = meta.get("ready")
    of = (version, bytes.fromhex(meta.get("task", "")), None if ready is None else Ready(**ready))
    about = (meta["round"], meta["method"], local)
    return HeldUpdate(*about, kept["trained"], *of)
