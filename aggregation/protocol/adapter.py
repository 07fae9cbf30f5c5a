"""A LoRA adapter on the wire: named float32 tensors, in one order, as one flat vector."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError

Vector: TypeAlias = NDArray[np.float32]  # (d,)
Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

LORA_A = ".lora_A.weight"
LORA_B = ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name (a key of PEFT's state dict) and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Manifest:
    """The tensors a flat vector is made of, in order."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def size(self) -> int:
        """Length d of the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The slice of the flat vector that each tensor takes."""
        found, start = {}, 0
        for tensor in self.tensors:
            found[tensor.name] = slice(start, start + tensor.size)
            start += tensor.size
        return found

    def views(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Tensors as reshaped views into `vector` (d,); no copy.

        Raises LocalProtocolError if the length is not this manifest's d.
        """
        if vector.shape != (self.size,):
            raise LocalProtocolError(f"vector has shape {vector.shape}, not ({self.size},)")
        return {t.name: vector[self.slices[t.name]].reshape(t.shape) for t in self.tensors}

    def join(self, tensors: Tensors) -> Vector:
        """One flat copy (d,) of `tensors`; refuses missing, unexpected and wrongly shaped ones.

        Nothing is broadcast: an (1, n) tensor is never taken for an (r, n) one.
        """
        self.check(tensors)
        vector = np.empty(self.size, np.float32)
        for tensor in self.tensors:
            vector[self.slices[tensor.name]] = np.ravel(tensors[tensor.name])
        return vector

    def check(self, tensors: Tensors) -> None:
        """Raise LocalProtocolError unless names and shapes are exactly this manifest's."""
        names = {tensor.name for tensor in self.tensors}
        if missing := sorted(names - tensors.keys()):
            raise LocalProtocolError(f"tensor {missing[0]} is missing ({len(missing)} in all)")
        if unexpected := sorted(tensors.keys() - names):
            raise LocalProtocolError(f"tensor {unexpected[0]} is unknown ({len(unexpected)} so)")
        for tensor in self.tensors:
            shape = tensors[tensor.name].shape
            if shape != tensor.shape:
                raise LocalProtocolError(f"{tensor.name} has shape {shape}, not {tensor.shape}")

    def only(self, suffix: str) -> Manifest:
        """The tensors whose name ends in `suffix` (LORA_A or LORA_B), in the same order."""
        return Manifest(tuple(t for t in self.tensors if t.name.endswith(suffix)))


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One adapted linear layer W (d_out × d_in): factors A (r × d_in) and B (d_out × r)."""

    name: str
    d_out: int
    d_in: int
    rank: int

    @property
    def a(self) -> TensorSpec:
        """The factor A, (r, d_in)."""
        return TensorSpec(self.name + LORA_A, (self.rank, self.d_in))

    @property
    def b(self) -> TensorSpec:
        """The factor B, (d_out, r)."""
        return TensorSpec(self.name + LORA_B, (self.d_out, self.rank))


@dataclass(frozen=True)
class AdapterSpec:
    """The shape of an adapter: its layers, rank r, α and how the two scale BA.

    Layers are sorted by name; the flat vector holds A then B of each layer.
    """

    layers: tuple[LayerSpec, ...]
    rank: int
    alpha: float
    rslora: bool = False
    target_modules: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if names != sorted(set(names)):
            raise LocalProtocolError("adapter layers must be unique and sorted by name")
        if any(layer.rank != self.rank for layer in self.layers):
            raise LocalProtocolError(f"every layer of the adapter must have rank {self.rank}")

    @cached_property
    def manifest(self) -> Manifest:
        """A and B of every layer."""
        return Manifest(tuple(t for layer in self.layers for t in (layer.a, layer.b)))

    @property
    def size(self) -> int:
        """Number of trainable values d."""
        return self.manifest.size

    @property
    def scale(self) -> float:
        """s in ΔW = s·BA: α/r, or α/√r under rsLoRA (arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True)
class Adapter:
    """One version of the adapter: its spec and its values as a flat float32 vector (d,)."""

    spec: AdapterSpec
    vector: Vector

    def __post_init__(self) -> None:
        if self.vector.dtype != np.float32 or self.vector.shape != (self.spec.size,):
            raise LocalProtocolError(
                f"adapter needs float32 ({self.spec.size},), got "
                f"{self.vector.dtype} {self.vector.shape}"
            )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over spec and little-endian values: the adapter's name, 32 bytes."""
        hashed = hashlib.sha256(b"nomoat adapter v1\0")
        # float(): α = 16 here and 16.0 after the wire are one adapter.
        settings = (int(self.spec.rank), float(self.spec.alpha), bool(self.spec.rslora))
        hashed.update(repr(settings).encode())
        for tensor in self.spec.manifest.tensors:
            hashed.update(repr((tensor.name, tensor.shape)).encode())
        hashed.update(np.ascontiguousarray(self.vector, "<f4").data)
        return hashed.digest()

    def factors(self) -> Iterator[tuple[LayerSpec, NDArray[np.float32], NDArray[np.float32]]]:
        """(layer, A (r, d_in), B (d_out, r)) of every layer, as views."""
        views = self.spec.manifest.views(self.vector)
        for layer in self.spec.layers:
            yield layer, views[layer.a.name], views[layer.b.name]


def as_bytes(vector: Vector) -> bytes:
    """float32 (d,) → 4d little-endian bytes."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def as_vector(data: bytes) -> Vector:
    """4d little-endian bytes → float32 (d,), its own copy; LocalProtocolError if not whole."""
    if len(data) % 4:
        raise LocalProtocolError(f"{len(data)} bytes are not float32 values")
    return np.frombuffer(data, "<f4").astype(np.float32)
