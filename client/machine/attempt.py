"""A probe that fails is unknown: a driver that crashes must not end a volunteer's client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def attempt(name: str, probe: Callable[[], T | None]) -> T | None:
    """Return what `probe` finds, or None if it cannot."""
    try:
        return probe()
    except Exception as problem:  # noqa: BLE001 - drivers raise anything; unknown is the answer
        log.debug("probe %s: %s", name, problem)
        return None
