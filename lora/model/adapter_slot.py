"""The adapter in the model: one slot, attached once; values go in and out as a flat vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nomoat.aggregation.errors import BadData, LocalProtocolError, UsageError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, Vector
from nomoat.lora.model.adapter_folder import load_folder, save_folder
from nomoat.lora.model.base_model import BaseModel
from nomoat.lora.model.targets import (
    PREFIX,
    REFUSALS,
    LoraShape,
    attached_layers,
    lora_config,
    one_sentence,
    put_adapter,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

__all__ = [
    "SlotFactors",
    "attach",
    "detach",
    "extract",
    "load_folder",
    "read_values",
    "save_folder",
    "slot",
    "swap",
]

SLOT = "default"
FROZEN = "frozen"  # a second slot: modules that take part in the forward pass and nothing else

SlotFactors: TypeAlias = "dict[str, nn.Parameter]"  # by the spec's tensor names, in its order


def attach(base: BaseModel, spec: AdapterSpec, frozen: AdapterSpec | None = None) -> PeftModel:
    """Put an adapter slot of `spec` into the base model. Once per process: values are swapped.

    `frozen`: and beside it one for modules that are added but never trained. Raises BadData if the
    model's layers are not the spec's.
    """
    shape = LoraShape(spec.rank, spec.alpha, spec.target_modules, spec.rslora)
    try:
        model = put_adapter(base.model, shape, spec.target_modules, SLOT)
    except REFUSALS as problem:
        raise _other_layers(base, one_sentence(problem)) from None
    if different := _difference(model, spec):
        model.unload()
        raise _other_layers(base, different)
    if frozen is not None:
        _add_frozen(model, frozen)
    return model


def _other_layers(base: BaseModel, why: str) -> BadData:
    return BadData(
        f"the layers of {base.name} are not the adapter's: {why}; it is another model, or another "
        "version of PEFT"
    )


def _difference(model: PeftModel, spec: AdapterSpec) -> str | None:
    """Name the first layer that only one of the two has; None if they are the same."""
    try:
        found = attached_layers(model, spec.rank)
    except UsageError as problem:
        return str(problem)
    here, there = set(found), set(spec.layers)
    for only, whose in ((here - there, "the model"), (there - here, "the adapter")):
        if only:
            layer = min(only, key=lambda layer: layer.name)
            shape = f"{layer.d_out} × {layer.d_in}"
            return f"only {whose} has {layer.name.removeprefix(PREFIX)} ({shape})"
    return None if found == spec.layers else "they come in another order"


def _add_frozen(model: PeftModel, spec: AdapterSpec) -> None:
    config = lora_config(spec.rank, spec.alpha, spec.target_modules, spec.rslora)
    model.add_adapter(FROZEN, config)
    tuner: Any = model.base_model
    tuner.set_adapter([SLOT, FROZEN])
    for parameter in slot(model, spec, FROZEN).values():
        parameter.requires_grad_(False)


def detach(model: PeftModel) -> None:
    """Take the slot out again; the base model is as it was."""
    model.unload()


def slot(model: PeftModel, spec: AdapterSpec, name: str = SLOT) -> SlotFactors:
    """Return the slot's factors: the same as long as the slot is attached, found by a walk.

    Raises LocalProtocolError if any is missing, unexpected, or of another shape: PEFT's own
    loading passes over all three in silence and leaves the adapter as it was.
    """
    found = {
        full.replace(f".{name}.", "."): parameter
        for full, parameter in model.named_parameters()
        if ".lora_" in full and f".{name}." in full
    }
    manifest = spec.manifest
    if missing := [t.name for t in manifest.tensors if t.name not in found]:
        raise LocalProtocolError(f"the model has no {missing[0]} ({len(missing)} are missing)")
    if len(found) != len(manifest.tensors):
        unexpected = min(found.keys() - {t.name for t in manifest.tensors})
        raise LocalProtocolError(f"the model has {unexpected}, which the adapter has not")
    for tensor in manifest.tensors:
        if tuple(found[tensor.name].shape) != tensor.shape:
            shape = tuple(found[tensor.name].shape)
            raise LocalProtocolError(f"{tensor.name} is {shape} in the model, not {tensor.shape}")
    return {tensor.name: found[tensor.name] for tensor in manifest.tensors}


def swap(model: PeftModel, adapter: Adapter, name: str = SLOT) -> SlotFactors:
    """Copy the adapter's values into the slot; afterwards `extract` gives exactly its vector.

    Returns the slot's factors, for whoever goes on with them.
    """
    import torch

    views = adapter.spec.manifest.views(adapter.vector)
    parameters = slot(model, adapter.spec, name)
    with torch.no_grad():
        for tensor, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(views[tensor]))
    return parameters


def extract(model: PeftModel, spec: AdapterSpec) -> Vector:
    """Return the slot's values as a new flat vector (d,), a copy."""
    return read_values(slot(model, spec), spec)


def read_values(factors: SlotFactors, spec: AdapterSpec) -> Vector:
    """Return the values of a slot's factors as a new flat vector (d,), a copy."""
    vector = np.empty(spec.size, np.float32)
    views = spec.manifest.views(vector)
    for name, parameter in factors.items():
        views[name][:] = parameter.detach().float().cpu().numpy()
    return vector
