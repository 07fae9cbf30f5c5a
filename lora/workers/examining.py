"""Examinations of base models: waited for, but not for ever, and remembered once they went well."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import platformdirs

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.plain_text import one_line
from nomoat.lora.model import left_out
from nomoat.lora.model.examination import Examined
from nomoat.storage.atomic import replacing
from nomoat.storage.private import check_own

LIMIT_S: Final = 1800.0  # loading the largest models from a slow disk takes minutes
DECIDING: Final = ("nomoat", "peft", "transformers", "torch")  # of what an examination finds


def examined(future: Future[Examined], limit_s: float = LIMIT_S) -> Examined:
    """Return what a SpecJob found; BadData if the worker has not answered within `limit_s`."""
    try:
        return future.result(timeout=limit_s)
    except TimeoutError:
        raise BadData(
            f"the base model was not loaded and examined within {limit_s / 60:.0f} minutes"
        ) from None


@dataclass(frozen=True, slots=True)
class Finding:
    """A volunteer's part of an examination. context: tokens of the longest row, None if any.

    left_out: a sentence on the parts that carry no adapter.
    """

    context: int | None
    left_out: str


def examinations() -> Path:
    """Return the folder of this account's cache that examinations are kept in."""
    return Path(platformdirs.user_cache_dir("nomoat")) / "examined"


def remember(base_hash: bytes, found: Examined) -> None:
    """Keep what an examination of all linear layers found: who joins from here need not ask."""
    remembered(examinations(), base_hash, lambda: found)


def remembered(cache: Path, base_hash: bytes, examine: Callable[[], Examined]) -> Finding:
    """Return what `examine` finds of the base with that content hash, asked once.

    cache: a folder that the answer is kept in, until a library that decides it changes. A refusal
    is not kept. Only what this account has written, where nobody else writes, is believed.
    """
    versions = " ".join(f"{name} {version(name)}" for name in DECIDING)
    named = hashlib.sha256(base_hash + versions.encode()).hexdigest()[:32]
    file = cache / f"{named}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for place in (cache, file):
            check_own(place)
        known = json.loads(file.read_text("utf-8"))
        told = one_line(known["told"])
        return Finding(None if known["context"] is None else int(known["context"]), told)
    found = examine()
    finding = Finding(found.context, left_out.line(found.left_out))
    with contextlib.suppress(OSError):  # a full disk or one that is not ours costs a second look
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o700)
        with replacing(file) as made:
            made.write(json.dumps({"context": finding.context, "told": finding.left_out}).encode())
    return finding
