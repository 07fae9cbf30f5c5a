"""The keep list: what looks secret in this machine's data and is trained on all the same."""

from __future__ import annotations

import json
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.client.data.secrets_scan import Kept
from nomoat.storage.atomic import replacing

FILE_NAME = "kept.json"
PARTS = ("origins", "kinds", "marks")


def load(home: Path) -> Kept:
    """The list below `home`; NomoatError if it is damaged, for guessing would train on secrets."""
    path = home / FILE_NAME
    try:
        values = json.loads(path.read_bytes())
        parts = [frozenset(map(str, values[name])) for name in PARTS]
    except FileNotFoundError:
        return Kept()
    except (OSError, ValueError, KeyError, TypeError):
        raise NomoatError(f"{path} is damaged; delete it and keep again what you want") from None
    return Kept(*parts)


def save(home: Path, kept: Kept) -> None:
    """Write the list."""
    values = {name: sorted(getattr(kept, name)) for name in PARTS}
    with replacing(home / FILE_NAME, 0o600) as file:
        file.write(json.dumps(values, indent=1).encode() + b"\n")


def more(kept: Kept, added: Kept) -> Kept:
    """Both lists in one."""
    return Kept(kept.origins | added.origins, kept.kinds | added.kinds, kept.marks | added.marks)
