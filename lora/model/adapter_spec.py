"""The layers that an adapter has on a given model, and the adapter every run starts from."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.model.files import resolve
from nomoat.lora.model.targets import LoraShape, Targets, settle

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def new_spec(
    model: str | PretrainedConfig | PreTrainedModel,
    rank: int,
    alpha: float,
    target_modules: Targets = "all-linear",
    rslora: bool = False,
) -> AdapterSpec:
    """Return the adapter's layers on `model`: a folder, hub id, configuration or model.

    No weights are held. Raises UsageError if a target module is none of the model's linear layers,
    or its head. What its layers do on text is examination.py's to find out.
    """
    shape = LoraShape(rank, alpha, target_modules, rslora)
    return settle(skeleton_of(model), shape).spec


def initial_adapter(spec: AdapterSpec, seed: bytes) -> Adapter:
    """Return the adapter before any training: B = 0 and A uniform in ±1/√d_in, as PEFT draws it.

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


def skeleton_of(model: str | PretrainedConfig | PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same architecture without memory for its weights.

    Raises BadData if there is none that writes text.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    found: Any = model
    if isinstance(model, str):
        folder = resolve(model)
        try:
            found = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (ValueError, KeyError, OSError) as problem:
            raise BadData(f"{folder}: {' '.join(str(problem).split())[:160]}") from None
    config = getattr(found, "config", found)
    try:
        with torch.device("meta"):
            skeleton: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False
            )
    except ValueError:
        kind = type(config).__name__
        raise BadData(f"a model of the kind {kind} is not a causal language model") from None
    return skeleton
