"""Several adapters beside one base: each row of a batch is answered under its own.

    y = W x + B_v (A_v x)        v: the voice of the row; none for the base

The factors of all voices lie in one tensor per layer, filled up with zeros to the largest rank, so
that a batch of mixed voices takes two batched products per layer. PEFT's `adapter_names` does the
same, but hooks every layer anew at each token (docs/adr/0008-engines.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export.factors import Factor, of_adapter
from nomoat.lora.inference.requests import BASE

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nomoat.lora.model.base_model import BaseModel


class VoiceBank:
    """The adapters beside a base model, which carries hooks from then on. One thread at a time."""

    def __init__(self, base: BaseModel) -> None:
        self._modules: dict[str, nn.Module] = dict(base.model.named_modules())
        self._device = base.device
        self._hooked: set[str] = set()
        self._factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # module → (v, r, d_in), …
        self._places: dict[str, int] = {BASE: 0}
        self._rows: torch.Tensor | None = None  # (batch,) places; None: all rows are the base's
        self._one: int | None = None  # the place of all rows, if they share one

    def __contains__(self, voice: str) -> bool:
        return voice in self._places

    def check(self, voices: Mapping[str, Adapter]) -> None:
        """Raise BadData if an adapter is not of this base. May be called by any thread."""
        for voice, adapter in voices.items():
            for part in of_adapter(adapter):
                self._check(voice, part)

    def hold(self, voices: Mapping[str, Adapter]) -> None:
        """Hold these adapters and no others, all of which were checked."""
        factors = {voice: of_adapter(adapter) for voice, adapter in voices.items()}
        self._places = {BASE: 0} | {voice: n for n, voice in enumerate(voices, 1)}
        self._factors = {}
        names = {part.module for parts in factors.values() for part in parts}
        by_name = {v: {part.module: part for part in parts} for v, parts in factors.items()}
        for name in names:
            self._factors[name] = self._stacked([by_name[v].get(name) for v in voices])
            if name not in self._hooked:
                self._hook(name)
                self._hooked.add(name)

    def answer_as(self, voices: Sequence[str]) -> None:
        """The rows of the next forward passes are these voices'; each must be held."""
        import torch

        places = [self._places[voice] for voice in voices]
        self._one = places[0] if len(set(places)) == 1 else None
        self._rows = torch.tensor(places, device=self._device) if any(places) else None

    def _check(self, voice: str, part: Factor) -> None:
        weight: Any = getattr(self._modules.get(part.module), "weight", None)
        quantised = getattr(weight, "quant_state", None) is not None
        shape = (part.b.shape[0], part.a.shape[1])
        if weight is None or not (
            quantised or tuple(weight.shape) in (shape, shape[::-1])
        ):  # transformers' Conv1D keeps W transposed
            raise BadData(f"{part.module} of {voice} is no layer of this model: another base's")

    def _stacked(self, parts: Sequence[Factor | None]) -> tuple[torch.Tensor, torch.Tensor]:
        """A (v, r, d_in) and Bᵀ (v, r, d_out) of one layer; place 0 is the base's, all zeros."""
        import torch

        some = next(part for part in parts if part is not None)
        rank = max(part.rank for part in parts if part is not None)
        a = np.zeros((len(parts) + 1, rank, some.a.shape[1]), np.float32)
        b = np.zeros((len(parts) + 1, rank, some.b.shape[0]), np.float32)
        for place, part in enumerate(parts, 1):
            if part is not None:
                a[place, : part.rank], b[place, : part.rank] = part.a, part.b.T
        return torch.from_numpy(a).to(self._device), torch.from_numpy(b).to(self._device)

    def _hook(self, name: str) -> None:
        def added(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            held = self._factors.get(name)
            if self._rows is None or held is None:
                return None
            a, b = held
            x = inputs[0].to(a.dtype)
            if self._one is not None:
                delta = (x @ a[self._one].T) @ b[self._one]
            else:
                delta = (x @ a[self._rows].transpose(1, 2)) @ b[self._rows]
            return output + delta.to(output.dtype)

        self._modules[name].register_forward_hook(added)
