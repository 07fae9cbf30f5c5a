"""The base model on this machine: loaded once per process, never changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import BadData, DoesNotFit, UsageError
from nomoat.lora.device import backends
from nomoat.lora.device.backends import Device
from nomoat.lora.device.present import names
from nomoat.lora.device.quantising import check_bitsandbytes
from nomoat.lora.layout.parts import WHOLE, CardPart, Layout, parts_of
from nomoat.lora.layout.placing import device_map
from nomoat.lora.layout.placing import place as place_parts
from nomoat.lora.model.adapter_spec import initial_adapter, new_spec
from nomoat.lora.model.files import config, content_hash, resolve
from nomoat.lora.model.programs import needs_own_code
from nomoat.lora.model.shape import ModelShape

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BaseModel", "content_hash", "initial_adapter", "load", "new_spec", "resolve"]


@dataclass(frozen=True)
class BaseModel:
    """A causal language model with its tokenizer, on one device, its weights frozen."""

    name: str
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    @cached_property
    def base_hash(self) -> bytes:
        """`content_hash` of the model's folder, 32 bytes."""
        return content_hash(self.folder)


def load(
    path_or_hub_id: str,
    device: str = "auto",
    dtype: str = "auto",
    bits: int | None = None,
    layout: Layout = WHOLE,
) -> BaseModel:
    """Load a model and its tokenizer, in the device's own type unless `dtype` says another.

    bits: of the frozen linear weights. 16: bfloat16 on a CPU and on MPS, too; 8: LLM.int8()
    (Dettmers et al. 2022, arXiv:2208.07339); 4: NF4, scales quantised once more (Dettmers et al.
    2023, arXiv:2305.14314). layout: of a base that one GPU does not hold; `device` may be a list.
    Raises BadData if it is missing, broken, or not a causal language model; DoesNotFit if the
    memory is too small, UsageError if `bits` cannot be had here.
    """
    folder = resolve(path_or_hub_id)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    found, *others = _started(device, layout)
    place = found.place
    tokenizer = _tokenizer(folder)
    if bits == 16 and not found.own_memory:
        dtype = "bfloat16"
    laid_out = _LaidOut.of(folder, layout, bits, (found, *others))
    quantised = _quantised(bits, found, laid_out)
    model = _model(folder, _dtype(dtype, found), quantised)
    try:
        _put(model, place, laid_out, bool(quantised))
    except torch.OutOfMemoryError as problem:
        raise DoesNotFit(f"the model in {folder} needs more memory than {place} has") from problem
    model.requires_grad_(False)
    model.eval()
    _check_vocabulary(folder, model, tokenizer)
    return BaseModel(path_or_hub_id, folder, model, tokenizer, place)


def _started(device: str, layout: Layout) -> list[Device]:
    """Start the device that a base is loaded on, or those that it is laid out over."""
    found = [backends.pick(name) for name in (names(device) if layout.over_gpus else (device,))]
    for one in found:
        one.start()
    return found


@dataclass(frozen=True)
class _LaidOut:
    """The parts of a base, and where each lies."""

    parts: tuple[CardPart, ...]
    places: tuple[torch.device, ...]

    @classmethod
    def of(
        cls, folder: Path, layout: Layout, bits: int | None, devices: Sequence[Device]
    ) -> _LaidOut | None:
        """None for a base that is held whole; UsageError for a family that has no known parts."""
        if layout == WHOLE:
            return None
        totals = [device.total_bytes() for device in devices]
        parts = parts_of(ModelShape.from_config(config(folder)), layout, bits, totals)
        return cls(parts, tuple(device.place for device in devices[: len(parts)]))


def _put(model: Any, place: torch.device, laid_out: _LaidOut | None, quantised: bool) -> None:
    """Move the model to where it belongs; a quantised one that is whole was loaded there."""
    if laid_out is not None:
        place_parts(model, laid_out.parts, laid_out.places)
    elif not quantised:
        model.to(place)


def load_tokenizer(path_or_hub_id: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone, without the model's weights; BadData if it is missing or broken."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return _tokenizer(resolve(path_or_hub_id))


def _dtype(name: str, device: Device) -> torch.dtype:
    import torch

    if name == "auto":
        return device.dtype()
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"{name} is no floating point type of torch")
    return found


def _quantised(bits: int | None, device: Device, laid_out: _LaidOut | None) -> dict[str, Any]:
    """Return from_pretrained's options for `bits`; UsageError in one line if it cannot be."""
    if bits in (None, 16):
        return {}
    check_bitsandbytes(f"a base of {bits} bits", device)
    from transformers import BitsAndBytesConfig

    if bits == 8:
        quantised = BitsAndBytesConfig(load_in_8bit=True)
    else:
        quantised = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=device.dtype(),
        )
    where: dict[str, Any] = {"": device.place}
    if laid_out is not None:
        where = device_map(laid_out.parts, laid_out.places)
    return {"quantization_config": quantised, "device_map": where}


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:  # it raises whatever a broken file makes it raise
        raise _unloadable(folder, "tokenizer", problem) from problem
    if not tokenizer.is_fast:
        raise BadData(
            f"the tokenizer in {folder} has no tokenizer.json and cannot place its tokens"
        )
    return tokenizer


def _model(folder: Path, dtype: torch.dtype, quantised: dict[str, Any]) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        known = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(known) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            kind = known.model_type
            raise BadData(f"the model in {folder} ({kind}) is not a causal language model")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=known,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **quantised,
        )
        model: PreTrainedModel = loaded[0]
        missing = sorted(loaded[1]["missing_keys"])
    except BadData:
        raise
    except (MemoryError, torch.OutOfMemoryError) as problem:
        raise DoesNotFit(f"the model in {folder} needs more memory than is free") from problem
    except Exception as problem:  # as above
        raise _unloadable(folder, "model", problem) from problem
    if missing:
        raise BadData(f"the weights in {folder} lack {missing[0]} ({len(missing)} in all)")
    model.config.use_cache = False  # training keeps no keys and values; generation asks for them
    return model


def _check_vocabulary(folder: Path, model: Any, tokenizer: Any) -> None:
    rows = model.get_input_embeddings().num_embeddings
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise BadData(
            f"the tokenizer in {folder} has token {highest}, the model only {rows} tokens: "
            "they do not belong together"
        )


def _unloadable(folder: Path, part: str, problem: BaseException) -> BadData:
    if "trust_remote_code" in str(problem):  # transformers' own advice: never followed
        own = needs_own_code(config(folder)) or "auto_map"
        return BadData(
            f"the {part} in {folder} needs code of its own ({own}), and nomoat runs no code from a "
            "model's folder; choose a model that transformers knows by itself"
        )
    return BadData(f"the {part} in {folder} cannot be loaded: {_line(problem)}")


def _line(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text[:160]
