"""The announced objects that every upload still owes; Flower keeps this in its database.

An upload ends with its process or its peer, so it is kept in memory: one lookup per object instead
of five statements.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from uuid import uuid4

MAX_OPEN = 10_000


class PendingUploads:
    """Open uploads by session id; the oldest is forgotten beyond `max_open`. Thread-safe."""

    def __init__(self, max_open: int = MAX_OPEN) -> None:
        self._max_open = max_open
        self._open: OrderedDict[str, tuple[int, set[str]]] = OrderedDict()
        self._replies: dict[str, str] = {}  # session → the reply it uploads
        self._lock = threading.Lock()

    def begin(self, run_id: int) -> str:
        """A new session of a run."""
        session_id = str(uuid4())
        with self._lock:
            self._open[session_id] = (run_id, set())
            if len(self._open) > self._max_open:
                self._replies.pop(self._open.popitem(last=False)[0], None)
        return session_id

    def is_for(self, session_id: str, reply_id: str) -> None:
        """Note which reply an open session uploads."""
        with self._lock:
            if session_id in self._open:
                self._replies[session_id] = reply_id

    def reply_of(self, session_id: str) -> str | None:
        """The reply that a session uploads; None of the coordinator's own sessions."""
        with self._lock:
            return self._replies.get(session_id)

    def run_of(self, session_id: str) -> int:
        """The run of an open session; ValueError of any other."""
        with self._lock:
            if session_id not in self._open:
                raise ValueError("no such upload")
            return self._open[session_id][0]

    def owe(self, session_id: str, objects: Iterable[str]) -> None:
        """These objects are still to come; a session that owes nothing is over."""
        with self._lock:
            owed = self._open[session_id][1]
            owed.update(objects)
            if not owed:
                self._end(session_id)

    def owes(self, run_id: int, session_id: str, object_id: str) -> bool:
        """True if an object is awaited in this session of this run."""
        with self._lock:
            run, owed = self._open.get(session_id, (None, set[str]()))
            return run == run_id and object_id in owed

    def settle(self, session_id: str, object_id: str) -> None:
        """An object is here."""
        with self._lock:
            if session_id in self._open:
                owed = self._open[session_id][1]
                owed.discard(object_id)
                if not owed:
                    self._end(session_id)

    def end_run(self, run_id: int) -> None:
        """Forget the uploads of a run."""
        with self._lock:
            for session_id in [key for key, (run, _) in self._open.items() if run == run_id]:
                self._end(session_id)

    def _end(self, session_id: str) -> None:
        del self._open[session_id]
        self._replies.pop(session_id, None)

    def __len__(self) -> int:
        return len(self._open)
