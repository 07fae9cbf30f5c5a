"""Arrays and what is said about them in one file: safetensors, readable with its own tools.

A root module because rooms that may not import each other keep their state in such files. Not
numpy's npz: reading its headers calls the Python parser, which in CPython 3.11 fails now and then
when several threads do so at once ("AST constructor recursion depth mismatch").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Arrays = dict[str, NDArray[Any]]
LENGTH_BYTES = 8  # of the header, little-endian, as safetensors defines it


def pack(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A file of JSON-able `meta` and `arrays`, with a checksum of both."""
    text = json.dumps(meta)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(whole, {"meta": text, "sha256": _checksum(text, whole)})


def unpack(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """Read what `pack` made; ValueError if a byte of it has changed."""
    try:
        length = int.from_bytes(data[:LENGTH_BYTES], "little")
        said = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])["__metadata__"]
        text, arrays = said["meta"], load(data)
        if said["sha256"] != _checksum(text, arrays):
            raise ValueError("the checksum is another")
        return json.loads(text), arrays
    except (SafetensorError, ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"damaged: {problem}") from None


def _checksum(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        found.update(f"\0{name}\0{arrays[name].dtype}{arrays[name].shape}\0".encode())
        found.update(arrays[name].reshape(-1).view(np.uint8).data)
    return found.hexdigest()
