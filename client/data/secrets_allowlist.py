"""The allowlist: what looks secret in this machine's data and is trained on all the same."""

from __future__ import annotations

import json
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.storage.atomic import replacing

FILE_NAME = "kept.json"
PARTS = ("origins", "kinds", "marks")


def load(home: Path) -> Allowlist:
    """The list below `home`; NomoatError if it is damaged, for guessing would train on secrets."""
    path = home / FILE_NAME
    try:
        values = json.loads(path.read_bytes())
        parts = [frozenset(map(str, values[name])) for name in PARTS]
    except FileNotFoundError:
        return Allowlist()
    except (OSError, ValueError, KeyError, TypeError):
        raise NomoatError(f"{path} is damaged; delete it and keep again what you want") from None
    return Allowlist(*parts)


def save(home: Path, allowlist: Allowlist) -> None:
    """Write the list."""
    values = {name: sorted(getattr(allowlist, name)) for name in PARTS}
    with replacing(home / FILE_NAME, 0o600) as file:
        file.write(json.dumps(values, indent=1).encode() + b"\n")


def more(allowlist: Allowlist, added: Allowlist) -> Allowlist:
    """Both lists in one."""
    return Allowlist(
        allowlist.origins | added.origins,
        allowlist.kinds | added.kinds,
        allowlist.marks | added.marks,
    )
