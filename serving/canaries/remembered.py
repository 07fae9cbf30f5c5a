"""Canaries that were planted from this machine: canaries.json in a volunteer's home."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.canaries.phrases import Canary
from nomoat.storage.private import write_private

FILE: Final = "canaries.json"


def remember(home: Path, canary: Canary) -> None:
    """Add a canary to those of this machine."""
    rows = [asdict(each) for each in (*remembered(home), canary)]
    write_private(home / FILE, json.dumps(rows).encode())


def remembered(home: Path) -> tuple[Canary, ...]:
    """All canaries of this machine; NomoatError if the file is damaged."""
    path = home / FILE
    try:
        return tuple(_read(row) for row in json.loads(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError):
        raise NomoatError(f"{path} is damaged; delete it, and plant another canary") from None


def _read(row: dict[str, Any]) -> Canary:
    return Canary(str(row["tag"]), tuple(map(str, row["phrase"])), int(row["at"]))


def add_to_gate(path: Path, canary: Canary) -> None:
    """Add a canary to a coordinator's file of them (server/release/canary_file.py)."""
    before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    line = json.dumps({"tag": canary.tag, "secret": " ".join(canary.phrase)})
    write_private(path, before + line.encode() + b"\n")
