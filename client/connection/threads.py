"""Threads named below the one that starts them: the logs of communities are told apart by names."""

from __future__ import annotations

import threading
from collections.abc import Callable


def beneath(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread that ends with the process, its name below the present one's: "town/poll"."""
    whole = f"{threading.current_thread().name}/{name}"
    return threading.Thread(target=work, name=whole, daemon=True)


def started(work: Callable[[], None], name: str) -> threading.Thread:
    """The same, started."""
    thread = beneath(work, name)
    thread.start()
    return thread
