"""Nothing in a model's folder may run: programs, pickles and names of code elsewhere are refused.

A base model comes from strangers. transformers imports Python files that a folder brings along
(`auto_map`), unpickles weights and fetches kernels that a configuration names; torch.load runs what
a pickle says. All weights used here are safetensors and all code is this installation's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nomoat.aggregation.errors import BadData

CODE: Final = frozenset({".py", ".pyc", ".pyd", ".pyx", ".so", ".dll", ".dylib"})
PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"})
ADAPTER: Final = "adapter_config.json"
KERNEL_KEYS: Final = ("attn_implementation", "experts_implementation", "kernel_config")


def check_no_program(folder: Path) -> None:
    """Raise BadData if a file below `folder` is a program or a pickle, hidden folders left out."""
    for file in sorted(_files(folder)):
        kind = file.suffix.lower()
        if kind in CODE:
            raise BadData(
                f"{file} is a program: nomoat runs no code from a model's folder; take it out, or "
                "choose a model that needs none"
            )
        if kind in PICKLES:
            raise BadData(
                f"{file} is a pickle, which can run a program when it is read; take it out: only "
                "weights in *.safetensors are used"
            )


def check_no_foreign_parts(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise BadData if the folder makes transformers look for parts of the model elsewhere."""
    if (folder / ADAPTER).exists():
        raise BadData(
            f"{folder} is an adapter on top of a base model ({ADAPTER}); merge the two, and name "
            "the folder with the merged weights"
        )
    for key, value in _settings(config):
        if key.lstrip("_").startswith(KERNEL_KEYS) and "/" in str(value):
            raise BadData(
                f"{folder / 'config.json'}: {key} names code on the Hub ({str(value)[:60]!r}), and "
                "nomoat runs none; take the line out"
            )


def needs_own_code(config: Mapping[str, Any]) -> str | None:
    """Return a class of the model's own that `auto_map` of the configuration names, if any."""
    named = config.get("auto_map")
    if not isinstance(named, Mapping) or not named:
        return None
    return str(next(iter(named.values())))[:80]


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):  # links to folders are not followed
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every key of the configuration and of its parts, a level deep as transformers reads."""
    for key, value in config.items():
        yield str(key), value
        if isinstance(value, Mapping):
            yield from ((str(inner), each) for inner, each in value.items())
