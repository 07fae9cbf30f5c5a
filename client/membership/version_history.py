"""Versions that have come to this machine, one line each: what everybody lost, and its own rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.storage.atomic import replacing

FILE: Final = "versions.jsonl"
MOST: Final = 500  # the oldest are dropped


@dataclass(frozen=True, slots=True)
class PastVersion:
    """A version as it came. loss: everybody's, None where nobody measured it.

    mine: the last loss of the rows kept here when it came, which is this version's unless another
    candidate was measured before it was fetched; None if there was none. base: of the base alone
    on the same rows; None until it is measured.
    """

    number: int
    round: int
    at: int
    loss: float | None
    mine: float | None
    base: float | None = None

    @property
    def gain(self) -> float | None:
        """The nats per token by which it is better than the base on the rows kept here."""
        return None if self.mine is None or self.base is None else self.base - self.mine


def note(root: Path, record: SignedVersion, mine: float | None, base: float | None = None) -> None:
    """Add a version to the file in a community's folder, unless it is the last one there.

    Of the last one, the base's loss is filled in once it is known.
    """
    past, version = list(read(root)), record.version
    if past and past[-1].number >= version.number:
        last = past.pop()
        if last.number != version.number or base is None or last.base is not None:
            return
        new = replace(last, base=base)
    else:
        new = PastVersion(version.number, version.round, version.at, version.loss, mine, base)
    lines = [json.dumps(asdict(each)) for each in (*past, new)[-MOST:]]
    with replacing(root / FILE) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def read(root: Path) -> Sequence[PastVersion]:
    """The versions in a community's folder, oldest first; lines that cannot be read are none."""
    found: list[PastVersion] = []
    try:
        lines = (root / FILE).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return ()
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            found.append(PastVersion(**json.loads(line)))
    return found
