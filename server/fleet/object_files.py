"""Objects of messages under way: small ones in memory, large ones as files, none in a database.

Flower keeps objects in SQLite, a dozen statements each; what is under way ends with its process, so
that buys nothing. Flower's own in-memory store does the bookkeeping here, and large contents are
kept in files: what waits to be fetched or added up costs no memory, however many volunteers
report.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from nomoat.server.fleet.flower_server import InMemoryObjectStore, ObjectEntry, ObjectTree

LARGE_BYTES = 64 << 10
MAX_DEPTH = 3  # Message, RecordDict, ConfigRecord
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ObjectFiles(InMemoryObjectStore):
    """Flower's object store over `folder`, whose content is deleted first."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self._folder = folder
        self._sizes: dict[str, int] = {}  # of what is here

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Announce the objects of a tree; the ids of those that are not here yet.

        An object that was announced before keeps the parts it was announced with, whatever this
        tree says of them. ValueError, and nothing is announced, if an id is no digest, or if the
        tree is deeper than a message is: objects in objects could otherwise be nested so that there
        are 2^depth ways through them.
        """
        with self.lock_store:  # whole: what it shares with another tree may be being deleted
            if self._height(object_tree) > MAX_DEPTH:
                raise ValueError(f"a message's objects are nested at most {MAX_DEPTH} deep")
            self.run_objects_mapping.setdefault(run_id, set())
            self._announce(run_id, object_tree)
            within = self._walk(object_tree.object_id)
            return [found for found in within if not self.store[found].is_available]

    def whole(self, object_id: str) -> bool:
        """True if an object and everything in it is here."""
        return self.ids_within(object_id) is not None

    def ids_within(self, object_id: str) -> frozenset[str] | None:
        """Return the ids of an object and of everything in it, None while one of them is missing.

        Each is visited once: objects that several others refer to (a member may announce such on
        purpose) would otherwise be walked once for every way that leads to them.
        """
        with self.lock_store:
            if object_id not in self.store:
                return None
            within = self._walk(object_id)
            return within if all(self.store[found].is_available for found in within) else None

    def bytes_within(self, object_id: str) -> int:
        """Bytes that are here of an object and of everything in it; 0 of an unknown one."""
        with self.lock_store:
            within = self._walk(object_id) if object_id in self.store else ()
            return sum(self._sizes.get(found, 0) for found in within)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object; NoObjectInStoreError or ValueError if it was not announced as it is."""
        super().put(object_id, object_content)  # checks the id, which is its file's name
        with self.lock_store:
            if object_id in self.store:
                self._sizes[object_id] = len(object_content)
        if len(object_content) < LARGE_BYTES:
            return
        path = self._file(object_id)
        beside = path.with_suffix(f".{id(object_content)}")  # two volunteers may send the same
        try:
            beside.write_bytes(object_content)
            beside.replace(path)
        except OSError:  # no room: it stays in memory
            beside.unlink(missing_ok=True)
            return
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None:  # deleted meanwhile
                path.unlink(missing_ok=True)
            else:
                entry.content = b""

    def get(self, object_id: str) -> bytes | None:
        """An object's content, b"" if it is still on its way, None if nobody announced it."""
        with self.lock_store:
            content = super().get(object_id)
            entry = self.store.get(object_id)
        if content or entry is None or not entry.is_available:
            return content
        try:
            return self._file(object_id).read_bytes()
        except FileNotFoundError:  # deleted meanwhile
            return None

    def in_memory(self, object_id: str) -> bytes:
        """A small object's content, b"" of one that lies in a file, or is not here."""
        with self.lock_store:
            entry = self.store.get(object_id)
        return b"" if entry is None else entry.content

    def delete(self, object_id: str) -> None:
        """Delete an object, and those in it that nobody else refers to; an unknown one is none."""
        ahead = [object_id]
        with self.lock_store:
            while ahead:  # a loop: a member may have nested objects as deep as it likes
                current = ahead.pop()
                entry = self.store.get(current)
                if entry is None or entry.ref_count > 0:
                    continue
                del self.store[current]
                self._sizes.pop(current, None)
                for run_id in entry.runs:
                    self.run_objects_mapping[run_id].discard(current)
                for child in entry.child_object_ids:
                    self.store[child].ref_count -= 1
                    ahead.append(child)
                self._file(current).unlink(missing_ok=True)

    def _walk(self, object_id: str) -> frozenset[str]:
        seen: set[str] = set()
        ahead = [object_id]
        while ahead:
            current = ahead.pop()
            if current not in seen:
                seen.add(current)
                ahead.extend(self.store[current].child_object_ids)
        return frozenset(seen)

    def _height(self, tree: ObjectTree) -> int:
        """Return how many objects the longest way down through a tree passes, itself included."""
        self._file(tree.object_id)  # ValueError if it is no digest
        if tree.object_id in self.store:
            return self._height_here(tree.object_id)
        return 1 + max(map(self._height, tree.children), default=0)

    def _height_here(self, object_id: str) -> int:
        children = self.store[object_id].child_object_ids
        return 1 + max(map(self._height_here, children), default=0)

    def _announce(self, run_id: int, tree: ObjectTree) -> None:
        known = self.store.get(tree.object_id)
        if known is not None:
            known.runs.add(run_id)
        else:
            for child in tree.children:
                self._announce(run_id, child)
            children = [child.object_id for child in tree.children]
            for child_id in children:
                self.store[child_id].ref_count += 1
            self.store[tree.object_id] = ObjectEntry(b"", False, children, 0, {run_id})
        self.run_objects_mapping[run_id].add(tree.object_id)

    def _file(self, object_id: str) -> Path:
        """Return an object's file. ValueError unless the id is a digest: peers choose ids."""
        if not _DIGEST.fullmatch(object_id):
            raise ValueError("an object's id is 64 hexadecimal digits")
        return self._folder / object_id

    def clear(self) -> None:
        """Delete everything."""
        super().clear()
        self._sizes.clear()
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
