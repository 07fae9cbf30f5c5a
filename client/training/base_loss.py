"""The base model's loss on the rows held out here, which an adapter's is compared with.

It is measured when nobody waits for an answer, once for each set of rows, and never leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.atomic import replacing

FILE: Final = "base_loss.json"


def rows_digest(heldout: Path, seq_len: int) -> str:
    """Name the rows that a loss is of, as far as a round's length reads them; empty if gone."""
    try:
        return hashlib.sha256(b"%d\0" % seq_len + heldout.read_bytes()).hexdigest()
    except OSError:
        return ""


@dataclass(frozen=True)
class BaseLossFile:
    """A community's base_loss.json."""

    path: Path

    @classmethod
    def within(cls, folder: Path) -> BaseLossFile:
        """Return the file of the community kept in `folder`."""
        return cls(folder / FILE)

    def keep(self, rows: str, loss: float) -> None:
        """Keep a loss in place of the one before; on a full disk it is measured again some day."""
        with contextlib.suppress(NomoatError), replacing(self.path) as file:
            file.write(json.dumps({"rows": rows, "loss": loss}).encode())

    def loss(self, rows: str | None = None) -> float | None:
        """Return the loss, nats per token, if it is of these rows (None: whichever they are)."""
        try:
            found = json.loads(self.path.read_text("utf-8"))
            known = rows in (None, found["rows"])
            return float(found["loss"]) if known else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
