"""The adapter that `nomoat init --from` names, found by the names that people use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nomoat.server.community.creation import Beginning


def beginning(which: str, base: str | None) -> Beginning:
    """The adapter to begin with; one line if there is none. base: as --base has it, if given."""
    from nomoat.client.home import Home
    from nomoat.serving.sources.beginning import find_beginning

    return find_beginning(which, base, Path.cwd(), Home.find())
