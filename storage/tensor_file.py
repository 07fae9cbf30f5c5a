"""Tensors of a safetensors file, one at a time and without torch.

The library's numpy reader knows no bfloat16, and a model must not be read whole to copy it.
Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import BadData

MAX_HEADER_BYTES = 100_000_000  # the format's own bound
DTYPES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that has been opened: its header is read and checked, its values not.

    header: name → dtype, shape and place of each tensor; start: where the values begin.
    """

    path: Path
    header: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    start: int

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read and check the header; BadData if the file is missing, cut off or something else."""
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                    raise ValueError("its header is cut off")
                header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", None) or {}
            for entry in header.values():
                _check(entry, size - 8 - length)
        except OSError as problem:
            raise BadData(f"cannot read {path}: {problem.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise BadData(f"{path} is not a safetensors file: {str(problem)[:80]}") from None
        return cls(path, header, metadata, 8 + length)

    def names(self) -> list[str]:
        """The tensors' names, in the order of their places."""
        return sorted(self.header, key=lambda name: int(self.header[name]["data_offsets"][0]))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return tuple(int(n) for n in self.header[name]["shape"])

    def dtype(self, name: str) -> str:
        """A tensor's stored type: F32, F16 or BF16."""
        return str(self.header[name]["dtype"])

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's values as a new float32 array; BadData if the file cannot be read."""
        raw = self.raw(name)
        if self.dtype(name) == "BF16":
            return from_bfloat16(np.frombuffer(raw, "<u2")).reshape(self.shape(name))
        kind = "<f4" if self.dtype(name) == "F32" else "<f2"
        return np.frombuffer(raw, kind).astype(np.float32).reshape(self.shape(name))

    def raw(self, name: str) -> bytes:
        """A tensor's bytes as they are stored."""
        first, last = self.header[name]["data_offsets"]
        try:
            with self.path.open("rb") as file:
                file.seek(self.start + first)
                return file.read(last - first)
        except OSError as problem:
            raise BadData(f"cannot read {self.path}: {problem.strerror}") from None

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return ((name, self.read(name)) for name in self.names())


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values of bfloat16 ones: their upper halves."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """bfloat16 values nearest to float32 ones, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _check(entry: dict[str, Any], body: int) -> None:
    start, end = entry["data_offsets"]
    size = math.prod(int(n) for n in entry["shape"])
    width = DTYPES.get(entry["dtype"])
    if width is None:
        raise ValueError(f"values of type {entry['dtype']} are unknown here")
    if not 0 <= start <= end <= body or end - start != width * size:
        raise ValueError("a tensor's place does not match its shape")
