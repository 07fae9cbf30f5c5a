"""Parts of a model that get no adapter, named as few as say it all: for the sheet and the card."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOT_LINEAR = "not made of linear layers"
SMALL = 0.001  # of the parameters: what is less is not worth a name


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a model (`*`: of every layer), why it carries no adapter, its share of values."""

    name: str
    why: str
    share: float


def line(parts: Collection[LeftOut]) -> str:
    """Return one sentence about the parts; empty if there are none."""
    if not parts:
        return ""
    told = "; ".join(f"{part.name} ({part.share:.1%} of the values): {part.why}" for part in parts)
    return f"Left as they are: {told}."


def grouped(
    model: PreTrainedModel, adapted: Collection[str], why: Mapping[str, str]
) -> tuple[LeftOut, ...]:
    """Return the largest parts of `model` in which nothing is adapted, without embedding and head.

    adapted: whole names of the layers with an adapter. why: what is known of a linear layer.
    """
    within = {end for name in adapted for end in _above(name)}
    sizes: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for module, name, size in _weights(model):
        if module in adapted:
            continue
        part = next((above for above in _above(module) if above not in within), name)
        shown = ".".join("*" if step.isdecimal() else step for step in part.split("."))
        sizes[shown] = sizes.get(shown, 0) + size
        reasons.setdefault(shown, why.get(module, NOT_LINEAR))
        if module in why:
            reasons[shown] = why[module]
    total = sum(parameter.numel() for parameter in model.parameters())
    return tuple(
        LeftOut(name, reasons[name], size / total)
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])
        if size >= SMALL * total
    )


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, str, int]]:
    """(module, whole name, values) of every matrix but those of tables of tokens and the head."""
    from torch import nn

    head = model.get_output_embeddings()
    for module_name, module in model.named_modules():
        if module is head or isinstance(module, nn.Embedding):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                yield module_name, f"{module_name}.{name}", parameter.numel()


def _above(name: str) -> Iterator[str]:
    """A dotted name's beginnings, the shortest first, itself last."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])
