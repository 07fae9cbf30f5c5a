"""Maps over independent pieces of work: in turn, or on several cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

# As the builtin map; that of a thread pool uses all cores, since numpy lets go of the interpreter
# lock. Each piece gives the same bits either way.
Run: TypeAlias = Callable[..., Iterable[Any]]
