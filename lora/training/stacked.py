"""The factors of many adapters as stacks, in the place of a model's one adapter; and their Adam.

Volunteer c's factors of a layer are A[c] (R, d_in) and B[c] (d_out, R), R the largest rank. What a
smaller rank leaves over is zero and stays zero: its gradient is a product with the other factor's
zeros. Trained values, gradients and moments are matrices (C, d), one row per volunteer, copied
into the stacks after each step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter, AdapterSpec, Vector
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.training.moments import Moments
from nomoat.lora.training.optimizer import BETAS, EPSILON

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn


class StackedFactors:
    """The adapters of C volunteers on one model. active: of them, the first so many take part."""

    def __init__(
        self,
        model: PeftModel,
        adapters: Sequence[Adapter],
        frozen: Sequence[Adapter | None],
        settings: TrainSettings,
    ) -> None:
        import torch

        self._specs = [adapter.spec for adapter in adapters]
        if len({_maps(spec) for spec in self._specs}) != 1:
            raise LocalProtocolError("adapters of different layers cannot be trained together")
        self._trained = {LORA_A: settings.train_a, LORA_B: settings.train_b}
        self.active = len(adapters)
        device = model.device
        stacks = _stacked([adapter.spec for adapter in adapters], [a.vector for a in adapters])
        names = [name for name in stacks if self._trained[_suffix(name)]]
        self._places: dict[str, tuple[slice, tuple[int, int]]] = {}
        start = 0
        for name in names:
            rows, columns = stacks[name].shape[1:]
            self._places[name] = slice(start, start + rows * columns), (rows, columns)
            start += rows * columns
        whole = [stacks[name].reshape(len(adapters), -1) for name in names]
        self._values = torch.from_numpy(np.concatenate(whole, axis=1)).to(device)
        self._start = self._values.clone()
        self._mean, self._square = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._steps = torch.zeros(len(adapters), 1, device=device)
        self._parameters: dict[str, nn.Parameter] = {}
        self._fixed = {
            name: torch.from_numpy(stack).to(device)
            for name, stack in stacks.items()
            if name not in self._places
        }
        self._scales = _scales(self._specs, device)
        self._frozen = _frozen_stacks(frozen, self._specs, device)

    @contextlib.contextmanager
    def in_place(self, model: PeftModel) -> Iterator[None]:
        """Have the model's adapted layers compute with the stacks, rows ordered by volunteer."""
        layers = sorted({_layer(name) for name in (*self._places, *self._fixed)})
        modules: list[Any] = [model.get_submodule(layer) for layer in layers]
        self._parameters = self._made()
        factors = self.named()
        try:
            for layer, module in zip(layers, modules, strict=True):
                module.forward = self._forward(module.get_base_layer(), layer, factors)
            yield
        finally:
            for module in modules:
                module.__dict__.pop("forward", None)

    def step(self, rates: torch.Tensor, prox: torch.Tensor | None, clip_norm: float) -> None:
        """Clip each active volunteer's gradient by itself, take its Adam step, zero the gradient.

        Kingma & Ba 2015 (arXiv:1412.6980), Algorithm 1, as torch.optim.AdamW without decay; prox as
        in train.train.
        """
        import torch

        k, (b1, b2) = self.active, BETAS
        with torch.no_grad():
            values, gradient = self._values[:k], self._gathered()[:k]
            if prox is not None:
                gradient.add_((values - self._start[:k]) * prox[:k, None])
            norms = gradient.norm(dim=1, keepdim=True)
            gradient.mul_((clip_norm / (norms + 1e-6)).clamp(max=1.0))
            self._steps[:k] += 1
            steps = self._steps[:k].double()
            self._mean[:k].lerp_(gradient, 1 - b1)
            self._square[:k].mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
            size = (rates[:k, None] / (1 - b1**steps)).float()
            denominator = self._square[:k].sqrt().div_((1 - b2**steps).sqrt().float()).add_(EPSILON)
            values.sub_(size * self._mean[:k] / denominator)
            self._hand_out()

    def named(self) -> dict[str, torch.Tensor]:
        """Return the stacks by their tensors' names; trained ones hold their gradients."""
        return {**self._fixed, **self._parameters}

    def vector(self, place: int) -> Vector:
        """Return one volunteer's values in its own spec's order and rank."""
        adapter = self._unstacked(self._values, place)
        fixed = {name: stack[place] for name, stack in self._fixed.items()}
        return _flat(self._specs[place], {**adapter, **fixed})

    def recall(self, moments: Sequence[Moments]) -> None:
        """Put in what optimisers remember from an earlier round."""
        import torch

        for kept, into in ((0, self._mean), (1, self._square)):
            vectors = [(m.mean, m.square)[kept] for m in moments]
            stacks = _stacked(self._specs, vectors)
            whole = [stacks[name].reshape(len(moments), -1) for name in self._places]
            into.copy_(torch.from_numpy(np.concatenate(whole, axis=1)))
        a, b = self._trained[LORA_A], self._trained[LORA_B]
        counts = [float(max(m.steps_a * a, m.steps_b * b)) for m in moments]
        self._steps.copy_(torch.tensor(counts)[:, None])

    def remember(self, place: int, before: Moments) -> Moments:
        """Return one volunteer's moments: of trained factors these, of others those of before."""
        spec, steps = self._specs[place], int(self._steps[place])
        mean, square = before.mean.copy(), before.square.copy()
        for into, state in ((mean, self._mean), (square, self._square)):
            views = spec.manifest.views(into)
            for name, value in self._unstacked(state, place).items():
                views[name][:] = _cut(value, views[name].shape)
        a, b = self._trained[LORA_A], self._trained[LORA_B]
        return Moments(mean, square, steps if a else before.steps_a, steps if b else before.steps_b)

    def _made(self) -> dict[str, nn.Parameter]:
        """Make the stacks that layers use, contiguous: products with views of rows are slow."""
        import torch
        from torch import nn

        made = {
            name: nn.Parameter(self._values[:, place].reshape(-1, *shape).contiguous())
            for name, (place, shape) in self._places.items()
        }
        for parameter in made.values():  # recordings add to it where it is
            parameter.grad = torch.zeros_like(parameter)
        return made

    def _gathered(self) -> torch.Tensor:
        """Take the gradients of all stacks, which are zero afterwards: (C, d)."""
        import torch

        gradients = [parameter.grad for parameter in self._parameters.values()]
        found = torch.cat([grad.flatten(1) for grad in gradients if grad is not None], dim=1)
        for grad in gradients:
            if grad is not None:
                grad.zero_()
        return found

    def _hand_out(self) -> None:
        """Copy the values into the stacks."""
        for name, (place, shape) in self._places.items():
            self._parameters[name].copy_(self._values[:, place].view(-1, *shape))

    def _forward(self, base: Any, layer: str, factors: dict[str, torch.Tensor]) -> Any:
        pairs = [(factors[layer + LORA_A], factors[layer + LORA_B], self._scales)]
        if self._frozen is not None:
            stacks, scales = self._frozen
            pairs.append((stacks[layer + LORA_A], stacks[layer + LORA_B], scales))

        def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            found: torch.Tensor = base(x)
            k, shape = self.active, found.shape
            grouped = x.reshape(k, -1, x.shape[-1])
            for a, b, scales in pairs:
                inner = grouped.to(a.dtype).bmm(a[:k].transpose(1, 2))
                low = inner.bmm(b[:k].transpose(1, 2)) * scales[:k]
                found = found + low.view(shape).to(found.dtype)
            return found

        return forward

    def _unstacked(self, whole: torch.Tensor, place: int) -> dict[str, torch.Tensor]:
        return {name: whole[place, at].view(shape) for name, (at, shape) in self._places.items()}


def _stacked(specs: Sequence[AdapterSpec], vectors: Sequence[Vector]) -> dict[str, Any]:
    """Return each factor of all volunteers as (C, …) float32, ranks filled up with zeros."""
    rank = max(spec.rank for spec in specs)
    found: dict[str, Any] = {}
    for place, (spec, vector) in enumerate(zip(specs, vectors, strict=True)):
        for name, view in spec.manifest.views(vector).items():
            rows, columns = view.shape
            whole = (rank, columns) if name.endswith(LORA_A) else (rows, rank)
            stack = found.setdefault(name, np.zeros((len(specs), *whole), np.float32))
            stack[place, :rows, :columns] = view
    return found


def _frozen_stacks(
    frozen: Sequence[Adapter | None], specs: Sequence[AdapterSpec], device: Any
) -> tuple[dict[str, torch.Tensor], torch.Tensor] | None:
    """Return the stacks of modules that are added and not trained; zeros for who has none."""
    import torch

    given = next((adapter for adapter in frozen if adapter is not None), None)
    if given is None:
        return None
    if _maps(given.spec) != _maps(specs[0]):
        raise LocalProtocolError("frozen modules are of the layers that are trained")
    nothing = Adapter(given.spec, np.zeros(given.spec.size, np.float32))
    filled = [nothing if adapter is None else adapter for adapter in frozen]
    stacks = _stacked([a.spec for a in filled], [a.vector for a in filled])
    on_device = {name: torch.from_numpy(stack).to(device) for name, stack in stacks.items()}
    return on_device, _scales([a.spec for a in filled], device)


def _scales(specs: Sequence[AdapterSpec], device: Any) -> torch.Tensor:
    import torch

    return torch.tensor([spec.scale for spec in specs], device=device).view(-1, 1, 1)


def _flat(spec: AdapterSpec, factors: dict[str, torch.Tensor]) -> Vector:
    vector = np.empty(spec.size, np.float32)
    for name, view in spec.manifest.views(vector).items():
        view[:] = _cut(factors[name], view.shape)
    return vector


def _cut(value: torch.Tensor, shape: tuple[int, ...]) -> Any:
    return value.detach().cpu().numpy()[tuple(slice(0, size) for size in shape)]


def _maps(spec: AdapterSpec) -> tuple[tuple[str, int, int], ...]:
    """The adapted linear maps, whatever the rank."""
    return tuple((layer.name, layer.d_out, layer.d_in) for layer in spec.layers)


def _suffix(name: str) -> str:
    return LORA_A if name.endswith(LORA_A) else LORA_B


def _layer(name: str) -> str:
    return name.removesuffix(_suffix(name))
