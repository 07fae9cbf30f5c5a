"""GGUF files: a base, a base with an adapter merged into it, an adapter alone.

Written tensor by tensor, so that a model needs no memory of its own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import UsageError
from nomoat.lora.export.factors import Factor
from nomoat.lora.export.llama_cpp.layout import ROPE_FACTORS, TensorLayout
from nomoat.lora.export.llama_cpp.vocabulary import Vocabulary
from nomoat.lora.export.weights import BaseWeights

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

QUANTS: Final = ("f32", "f16", "q8_0", "q4_0")
BLOCK: Final = 32  # values that share a scale in q8_0 and q4_0
INSTALL: Final = "GGUF files need two packages more: pip install gguf xllamacpp"


@dataclass(frozen=True)
class Named:
    """Names a file carries. base_hash: content hash of the base, 32 bytes.

    base_id: the base's id on the hub, if it has one.
    """

    name: str
    base_name: str
    base_hash: bytes
    base_id: str = ""
    license: str = ""


@dataclass(frozen=True, eq=False)
class WholeModel:
    """All that a model's file holds. weights: of the base, or merged. template: of its chats."""

    layout: TensorLayout
    vocabulary: Vocabulary
    weights: BaseWeights
    template: str


def write_model(path: Path, model: WholeModel, quant: str, said: Named) -> None:
    """Write a model; UsageError if a tensor has no place in the file, or gguf is not installed."""
    gguf, layout = _gguf(), model.layout
    writer = gguf.GGUFWriter(path, layout.family.name)
    writer.add_type(gguf.GGUFType.MODEL)
    _say(writer, said)
    for key, value in layout.sizes().items():
        kind = gguf.GGUFValueType.UINT32 if isinstance(value, int) else gguf.GGUFValueType.FLOAT32
        writer.add_key_value(f"{layout.family.name}.{key}", value, kind)
    for key, scaling in layout.scaling().items():
        _add(writer, f"{layout.family.name}.{key}", scaling)
    writer.add_file_type(_file_type(quant))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, model.vocabulary)
    writer.add_chat_template(model.template)
    _write_tensors(writer, layout, model.weights, quant)


def write_adapter(path: Path, layout: TensorLayout, factors: Sequence[Factor], said: Named) -> None:
    """Write an adapter for llama.cpp's --lora.

    It computes α/r · B A with the r of each tensor and knows no other rule: B holds every scale
    already, and is multiplied by r/α once more where ranks differ.
    """
    gguf = _gguf()
    alpha = float(max(factor.rank for factor in factors))
    writer = gguf.GGUFWriter(path, layout.family.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    _say(writer, said)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for factor in factors:
        name = layout.tensor(factor.module) + ".weight"
        b = layout.arrange(factor.module, factor.b) * np.float32(factor.rank / alpha)
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(factor.a, np.float32))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, np.float32))
    _finish(writer)


def _write_tensors(
    writer: GGUFWriter, layout: TensorLayout, weights: BaseWeights, quant: str
) -> None:
    """Announce every tensor, then write one after the other."""
    tied = bool(layout.config.get("tie_word_embeddings"))
    names = [n for n in weights.shapes() if not (tied and n == "lm_head.weight")]
    shapes = weights.shapes()
    for name in names:
        kind, size = _kind(name, shapes[name], quant)
        dtype = np.dtype(np.float32 if kind.name == "F32" else np.float16)
        quantised = kind.name.startswith("Q")
        shape = shapes[name]
        if quantised:
            shape, dtype = (*shape[:-1], size // math.prod(shape[:-1])), np.dtype(np.uint8)
        writer.add_tensor_info(layout.tensor(name), shape, dtype, int(size), kind)
    factors = layout.rope_factors()
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name in names:
        kind, _ = _kind(name, shapes[name], quant)
        writer.write_tensor_data(_stored(layout.arrange(name, weights.read(name)), kind))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.flush()
    writer.close()


def _kind(name: str, shape: tuple[int, ...], quant: str) -> tuple[GGMLQuantizationType, int]:
    """Choose how a tensor is stored, and count its bytes.

    Vectors stay float32, as llama.cpp wants them. Embeddings and head are where four bits hurt
    most: they get eight. A row that is no multiple of a block is kept in 16 bits.
    """
    gguf = _gguf()
    kinds = gguf.GGMLQuantizationType
    if len(shape) == 1 or quant == "f32":
        kind = kinds.F32
    elif quant == "f16" or shape[-1] % BLOCK:
        kind = kinds.F16
    elif quant == "q8_0" or name.startswith(("model.embed_tokens", "lm_head")):
        kind = kinds.Q8_0
    else:
        kind = kinds.Q4_0
    values, size = gguf.GGML_QUANT_SIZES[kind]
    return kind, math.prod(shape) // values * size


def _stored(values: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[Any]:
    import gguf

    if kind == gguf.GGMLQuantizationType.F32:
        return np.ascontiguousarray(values, np.float32)
    if kind == gguf.GGMLQuantizationType.F16:
        return np.ascontiguousarray(values, np.float16)
    return gguf.quants.quantize(np.ascontiguousarray(values, np.float32), kind)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list([token.encode() for token in vocabulary.tokens])
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    if vocabulary.model == "llama":
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.space_before)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }
    for kind, number in vocabulary.specials.items():
        adders[kind](number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)


def _say(writer: GGUFWriter, said: Named) -> None:
    """Name the file and its base: an adapter alone does not say what it belongs to."""
    writer.add_name(said.name)
    if said.license:
        writer.add_license(said.license)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, said.base_name)
    if said.base_id:
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{said.base_id}")
    writer.add_string("nomoat.base_hash", said.base_hash.hex())


def _add(writer: GGUFWriter, key: str, value: str | int | float) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)


def _file_type(quant: str) -> int:
    import gguf

    kinds = gguf.LlamaFileType
    names = {"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "q8_0": kinds.MOSTLY_Q8_0}
    return int(names.get(quant, kinds.MOSTLY_Q4_0))


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise UsageError(INSTALL) from None
    return gguf
