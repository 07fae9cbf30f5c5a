"""Records that an older release must not take for damaged ones: it has been newer here before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from nomoat.aggregation.errors import NomoatError

T = TypeVar("T")


def record(kind: type[T], values: Mapping[str, Any], path: Path) -> T:
    """Make a dataclass of a file's values; TypeError if one that it needs is missing.

    NomoatError if there are others: what they mean is not known here, so it is not passed over.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if beyond := sorted(set(values) - known):
        raise NomoatError(
            f"{path} was written by a newer release of nomoat ({beyond[0][:40]!r} is unknown "
            "here): install that release again"
        )
    return kind(**values)
