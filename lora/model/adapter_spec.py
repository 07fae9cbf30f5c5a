"""Which layers an adapter has on a given model, and the adapter every run starts from."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter, AdapterSpec, LayerSpec
from nomoat.lora.model.files import resolve

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

Targets: TypeAlias = tuple[str, ...] | Literal["all-linear"]


def new_spec(
    model: str | PretrainedConfig | PreTrainedModel,
    rank: int,
    alpha: float,
    target_modules: Targets = "all-linear",
    rslora: bool = False,
) -> AdapterSpec:
    """The adapter's layers on `model` (a folder, hub id, configuration or model): no weights held.

    Raises UsageError if a target module is none of the model's linear layers, or its head.
    """
    skeleton = _skeleton(model)
    chosen = _checked_targets(skeleton, target_modules)
    config = lora_config(rank, alpha, chosen, rslora)
    return read_spec(_wrapped(skeleton, config), config)


def lora_config(rank: int, alpha: float, targets: tuple[str, ...], rslora: bool) -> LoraConfig:
    """PEFT's configuration of this project's adapters: plain LoRA, no dropout, no bias."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft says int and computes with any number
        target_modules=list(targets),
        use_rslora=rslora,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def read_spec(model: PeftModel, config: LoraConfig) -> AdapterSpec:
    """The spec of the adapter that `model` carries, from the names and shapes in its state."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    layers = []
    for name in sorted(shapes):
        if not name.endswith((LORA_A, LORA_B)) or len(shapes[name]) != 2:
            raise UsageError(f"{name} is not a LoRA factor of a linear layer; choose other targets")
        if name.endswith(LORA_A):
            layer = name.removesuffix(LORA_A)
            layers.append(LayerSpec(layer, shapes[layer + LORA_B][0], shapes[name][1], config.r))
    names = tuple(sorted(config.target_modules or ()))
    rslora = bool(config.use_rslora)
    layers.sort(key=lambda layer: layer.name)
    return AdapterSpec(tuple(layers), config.r, float(config.lora_alpha), rslora, names)


def initial_adapter(spec: AdapterSpec, seed: bytes) -> Adapter:
    """The adapter before any training: B = 0 and A uniform in ±1/√d_in, as PEFT draws it.

    That is Kaiming-uniform with a = √5 (He et al. 2015, arXiv:1502.01852). Everyone starts from
    this one adapter: averaged factors of differently drawn ones mean nothing.
    """
    entropy = int.from_bytes(hashlib.sha256(b"nomoat initial adapter\0" + seed).digest(), "big")
    rng = np.random.Generator(np.random.PCG64(entropy))
    vector = np.zeros(spec.size, np.float32)
    views = spec.manifest.views(vector)
    for layer in spec.layers:
        drawn = rng.random(layer.a.shape, dtype=np.float32)  # [0, 1)
        views[layer.a.name][:] = (drawn * 2 - 1) * np.float32(1 / math.sqrt(layer.d_in))
    return Adapter(spec, vector)


def linear_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the linear layers that may carry an adapter, sorted: never head or embedding.

    Converters to other formats reject adapters on those two. Last names ("q_proj"), unless one of
    them is the head's as well: then whole names.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    whole, heads = set[str](), set[str]()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            (heads if module is head else whole).add(name)
    last = {name.rpartition(".")[2] for name in whole}
    clash = last & {name.rpartition(".")[2] for name in heads}
    return tuple(sorted(whole if clash else last))


def _skeleton(model: Any) -> PreTrainedModel:
    """A model of the same architecture without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(model, str):
        folder = resolve(model)
        try:
            model = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (ValueError, KeyError, OSError) as problem:
            raise BadData(f"{folder}: {' '.join(str(problem).split())[:160]}") from None
    config = getattr(model, "config", model)
    try:
        with torch.device("meta"):
            skeleton: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except ValueError:
        kind = type(config).__name__
        raise BadData(f"a model of the kind {kind} is not a causal language model") from None
    return skeleton


def _checked_targets(model: PreTrainedModel, targets: Targets) -> tuple[str, ...]:
    known = linear_modules(model)
    if isinstance(targets, str):
        targets = (targets,)
    if targets == ("all-linear",):
        return known
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        fits = any(name == target or name.endswith(f".{target}") for name in names)
        if not fits or target.rpartition(".")[2] not in {x.rpartition(".")[2] for x in known}:
            raise UsageError(
                f"the model has no target module {target!r}; its linear layers are "
                f"{', '.join(known[:40])}"
            )
    return tuple(sorted(set(targets)))


def _wrapped(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    import warnings

    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out is set right by itself
        try:
            return get_peft_model(model, config)
        except ValueError as problem:
            raise UsageError(" ".join(str(problem).split())[:200]) from None
