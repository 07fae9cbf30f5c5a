"""Waiting for a base model's examination, but not for ever: a folder may hold anything."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

from nomoat.aggregation.errors import BadData
from nomoat.lora.model.examination import Examined

LIMIT_S: Final = 1800.0  # loading the largest models from a slow disk takes minutes


def examined(future: Future[Examined], limit_s: float = LIMIT_S) -> Examined:
    """Return what a SpecJob found; BadData if the worker has not answered within `limit_s`."""
    try:
        return future.result(timeout=limit_s)
    except TimeoutError:
        raise BadData(
            f"the base model was not loaded and examined within {limit_s / 60:.0f} minutes"
        ) from None
