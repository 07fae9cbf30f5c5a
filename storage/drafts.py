"""Folders that are filled at once: written in a draft inside them, then moved to their places."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.storage.atomic import held, replacing
from nomoat.storage.names import settle

DRAFT = ".draft"
_NEW, _MOVING = "new", "moving.json"


@contextlib.contextmanager
def filling(root: Path, last: str) -> Iterator[Path]:
    """An empty folder whose entries move into `root` when the block ends without an error.

    `last` moves after the others: without it `root` counts as empty. After an error nothing is
    left, no folder made for it either; what a killed process left is taken back by the next one.
    UsageError if an entry is there already, NomoatError if the place cannot be written.
    """
    root = root.absolute()
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    draft = root / DRAFT
    try:
        with held(draft / "lock", f"{root} is being made by another process"):
            try:
                _take_back(root, last)
                (draft / _NEW).mkdir(mode=0o700)
                yield draft / _NEW
                _move_in(draft, root, last)
            except OSError as problem:
                raise NomoatError(f"cannot write {root}: {problem.strerror or problem}") from None
            finally:
                _take_back(root, last)
                shutil.rmtree(draft, ignore_errors=True)
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # in use: it holds what was made
                folder.rmdir()


def _move_in(draft: Path, root: Path, last: str) -> None:
    names = sorted(file.name for file in (draft / _NEW).iterdir())
    for name in names:
        if os.path.lexists(root / name):
            raise UsageError(f"{root / name} exists already: move it away, or give another folder")
    with replacing(draft / _MOVING) as file:
        file.write(json.dumps(names).encode())
    for name in sorted(names, key=lambda name: name == last):
        settle(root)  # after a power cut, too, `last` is there only if the others are
        os.rename(draft / _NEW / name, root / name)
    settle(root)


def _take_back(root: Path, last: str) -> None:
    """Remove what an unfinished move brought, and its draft."""
    draft = root / DRAFT
    with contextlib.suppress(FileNotFoundError):
        names = json.loads((draft / _MOVING).read_bytes())
        for name in () if (root / last).exists() else names:
            gone = root / name
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
        (draft / _MOVING).unlink()
    shutil.rmtree(draft / _NEW, ignore_errors=True)
