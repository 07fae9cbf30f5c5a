"""A base put where its layout says, with the moves between; autograd takes them back by itself.

Hooks in front of each part move what it is given to where the part lies. transformers' own
dispatching is undone after loading: it would bring an embedding that stays in main memory to the
GPU at every pass, which is what there is no room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nomoat.lora.layout.parts import CardPart

if TYPE_CHECKING:
    import torch

DECODER = "model"  # its name in the families whose sizes are known


def device_map(parts: Sequence[CardPart], places: Sequence[torch.device]) -> dict[str, Any]:
    """Return where from_pretrained puts each module: quantised layers go where they stay.

    What stays in main memory is read by way of the first or the last GPU.
    """
    found: dict[str, Any] = {}
    layer = 0
    for part, place in zip(parts, places, strict=False):
        for _ in range(part.layers):
            found[f"{DECODER}.layers.{layer}"] = place
            layer += 1
    last = places[len(parts) - 1]
    found[f"{DECODER}.embed_tokens"] = last if any(p.embedding and p.head for p in parts) else (
        places[0]
    )  # fmt: skip
    found[f"{DECODER}.rotary_emb"] = places[0]
    found[f"{DECODER}.norm"] = found["lm_head"] = last
    return found


def place(model: Any, parts: Sequence[CardPart], places: Sequence[torch.device]) -> None:
    """Move each part of `model` to where it lies, and have inputs follow.

    model: of a family that lora/model/shape.py knows. places: of the parts, in their order.
    """
    import torch

    _forget_dispatching(model)
    ram, first, last = torch.device("cpu"), places[0], places[len(parts) - 1]
    inner, head = model.get_decoder(), model.get_output_embeddings()
    embedding = inner.get_input_embeddings()
    embedding_at = next((p for part, p in zip(parts, places, strict=False) if part.embedding), ram)
    head_at = last if parts[-1].head else ram
    for module, where in ((embedding, embedding_at), (head, head_at), (inner.norm, last)):
        module.to(where)
        module.register_forward_pre_hook(_Moves(where), with_kwargs=True)
    embedding.register_forward_hook(_Hands(first))
    inner.rotary_emb.to(first)
    for layer, where in zip(inner.layers, _of_layers(parts, places), strict=True):
        layer.to(where)
        layer.register_forward_pre_hook(_Moves(where), with_kwargs=True)


def _of_layers(parts: Sequence[CardPart], places: Sequence[torch.device]) -> Iterator[torch.device]:
    for part, where in zip(parts, places, strict=False):
        yield from [where] * part.layers


def _forget_dispatching(model: Any) -> None:
    """Take accelerate's hooks off, which a device map leaves on every module."""
    if getattr(model, "hf_device_map", None) is None:
        return
    from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]

    remove_hook_from_module(model, recurse=True)
    model.hf_device_map = None


class _Moves:
    """A hook in front of a module: its inputs go to where it lies."""

    def __init__(self, where: torch.device) -> None:
        self._where = where

    def __call__(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        moved = tuple(_moved(value, self._where) for value in given)
        return moved, {name: _moved(value, self._where) for name, value in named.items()}


class _Hands:
    """A hook behind a module: its output goes to where it is wanted."""

    def __init__(self, where: torch.device) -> None:
        self._where = where

    def __call__(self, _: Any, __: Any, output: Any) -> Any:
        return _moved(output, self._where)


def _moved(value: Any, where: torch.device) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(where, non_blocking=where.type != "cpu")
    if isinstance(value, tuple):
        return tuple(_moved(part, where) for part in value)
    return value


def home_of(model: Any) -> torch.device:
    """Return where the first trained factors of `model` lie: losses and the optimiser are there."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            found: torch.device = parameter.device
            return found
    other: torch.device = model.device
    return other


def is_laid_out(model: Any) -> bool:
    """Tell whether `place` has put this model's parts."""
    head = model.get_output_embeddings()
    hooks = head._forward_pre_hooks.values() if head is not None else ()
    return any(isinstance(hook, _Moves) for hook in hooks)
