"""Folders that `datasets.Dataset.save_to_disk` wrote: which of their files hold the rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DESCRIPTIONS = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
ABOUT_DATASETS = frozenset({"dataset_info.json", "dataset_infos.json"})


@dataclass(frozen=True, slots=True)
class SavedDataset:
    """A folder as its own description has it. `tables`: the files with its rows, None if unsaid.

    splits: of a dictionary of data sets, None if the folder is none.
    """

    tables: frozenset[str] | None = None
    splits: tuple[str, ...] | None = None

    def leaves_out(self, name: str) -> str:
        """Return why an entry of the folder is not read; empty if it is."""
        if name in ABOUT_DATASETS:
            return "describes the data"
        if self.tables is not None and name not in self.tables:
            return "not among the files with this data set's rows"
        if self.splits is not None:
            if name in DESCRIPTIONS:
                return "describes the data"
            if "train" in self.splits and name != "train" and name in self.splits:
                return "a split beside train; name its folder to read it"
        return ""


def saved(folder: Path) -> SavedDataset:
    """Read what the library wrote about `folder`; nothing is known of other folders."""
    state = _described(folder / "state.json")
    listed = state.get("_data_files")
    if isinstance(listed, list):
        named = (item.get("filename") for item in listed if isinstance(item, dict))
        return SavedDataset(tables=frozenset(name for name in named if isinstance(name, str)))
    splits = _described(folder / "dataset_dict.json").get("splits")
    if isinstance(splits, list):
        return SavedDataset(splits=tuple(name for name in splits if isinstance(name, str)))
    return SavedDataset()


def _described(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
