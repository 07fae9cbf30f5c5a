"""A base model's weights, one tensor at a time, as they are or with an adapter added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import BadData
from nomoat.lora.export.factors import Factor
from nomoat.lora.model.files import WEIGHTS, checked, config
from nomoat.storage.tensor_file import TensorFile

# Families whose linear layers keep W as (d_in, d_out): transformers' Conv1D.
TRANSPOSED = ("gpt2", "openai-gpt")


@dataclass(frozen=True)
class BaseWeights:
    """The tensors of a model folder; of those in `deltas`, W + B A, summed in float32."""

    files: tuple[TensorFile, ...]
    transposed: bool
    deltas: Mapping[str, Factor] = field(default_factory=dict)  # by the tensor's name

    @classmethod
    def open(cls, folder: Path, factors: Sequence[Factor] = ()) -> BaseWeights:
        """The weights in a model folder, with `factors` merged into them.

        BadData if a file is broken, or the model lacks a layer that a factor belongs to.
        """
        files = tuple(TensorFile.open(path) for path in sorted(checked(folder).glob(WEIGHTS)))
        weights = cls(files, config(folder)["model_type"] in TRANSPOSED)
        shapes = {name: file.shape(name) for file in files for name in file.header}
        deltas = {f"{factor.module}.weight": factor for factor in factors}
        for name, factor in deltas.items():
            shape = (factor.b.shape[0], factor.a.shape[1])
            if shapes.get(name) != (shape[::-1] if weights.transposed else shape):
                raise BadData(f"{folder} has no {name} of the adapter's size: it is another model")
        return cls(files, weights.transposed, deltas)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, file by file, in the order they are stored."""
        return {name: file.shape(name) for file in self.files for name in file.names()}

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor's values, the adapter's part added."""
        file = next(file for file in self.files if name in file.header)
        values = file.read(name)
        factor = self.deltas.get(name)
        if factor is None:
            return values
        delta = factor.delta()
        return values + (delta.T if self.transposed else delta)
