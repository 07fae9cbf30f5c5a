"""Base models that this process holds already, the fork server's above all."""

from __future__ import annotations

from nomoat.lora.device import backends
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.model.base_model import BaseModel, load

_held: dict[str, BaseModel] = {}


def keep(folder: str, base: BaseModel) -> None:
    """Have `base_model` return `base` for this folder, in this process and those forked from it."""
    _held[folder] = base


def base_model(
    folder: str, device: str, bits: int | None = None, layout: Layout = WHOLE
) -> BaseModel:
    """Return the model in `folder`: the one kept if a CPU and all bits are meant, else loaded."""
    if folder in _held and layout == WHOLE and bits is None and backends.pick(device).kind == "cpu":
        return _held[folder]
    return load(folder, device, bits=bits, layout=layout)
