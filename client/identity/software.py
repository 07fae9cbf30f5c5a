"""The software of this machine, as its owner may show it to a coordinator."""

from __future__ import annotations

import platform
from functools import cache

from nomoat import __version__


@cache
def software() -> str:
    """Return nomoat's version, system and processor: "nomoat 0.1.0, Linux x86_64"."""
    return f"nomoat {__version__}, {platform.system()} {platform.machine()}"
