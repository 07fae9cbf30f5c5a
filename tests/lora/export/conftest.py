"""Tiny models of several families and tokenizers of several kinds, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export.model_card import CardFacts
from nomoat.lora.export.order import ExportTarget, Order

SEED_TEXT = [
    "The mail server keeps a copy of every message until the volunteer has read it.",
    "It's 2024; we'll pay $1,000.50 for the file, or None if there is no such file in it.",
    "Grüße, déjà vu, 東京, привет, 🙂 and  two  spaces\tand a tab.\n\nNew lines\n too",
    "def open(file, mode='r'):\n    return 12345 + 67\n",
] * 3
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
SIZE = 480


def byte_level(*before: Any, use_regex: bool) -> Any:
    """A byte-level BPE tokenizer that splits by `before` first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    core.pre_tokenizer = pre_tokenizers.Sequence([*before, level]) if before else level
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(SEED_TEXT, trainer)
    return core


def sentencepiece_like() -> Any:
    """A BPE tokenizer over ▁ and characters that falls back on bytes, as Llama 2 has."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence(spaces)
    trainer = trainers.BpeTrainer(vocab_size=SIZE - 264, show_progress=False)
    trained.train_from_iterator(SEED_TEXT, trainer)
    import json

    model = json.loads(trained.to_str())["model"]
    first = [*SPECIALS[:3], *(f"<0x{n:02X}>" for n in range(256)), *SPECIALS[3:]]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {text: number for number, text in enumerate([*first, *pieces])}
    merges = [tuple(merge) for merge in model["merges"]]
    core = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence(spaces)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return core


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[..., Any]:
    """A tokenizer of a kind: gpt-2, llama-3, qwen-2, smollm or sentencepiece."""

    def make(kind: str, template: str | None = None) -> Any:
        from tokenizers import Regex, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        split = {"llama-3": LLAMA3, "qwen-2": QWEN}.get(kind)
        if kind == "sentencepiece":
            core = sentencepiece_like()
        elif split:
            step = pre_tokenizers.Split(Regex(split), "isolated", invert=False)
            core = byte_level(step, use_regex=False)
        else:
            digits = [pre_tokenizers.Digits(individual_digits=True)] if kind == "smollm" else []
            core = byte_level(*digits, use_regex=True)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **NAMES)
        tokenizer.chat_template = template
        return tokenizer

    return make


SIZES: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Any]:
    """A model with random weights: family "Llama", "Mistral", "Qwen2" or "Qwen3"."""

    def make(family: str, **changes: Any) -> Any:
        import torch
        import transformers

        torch.set_num_threads(1)
        torch.manual_seed(1)
        name = "Gemma3Text" if family == "Gemma3" else family
        config = getattr(transformers, f"{name}Config")(**(SIZES | changes))
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        return model

    return make


@pytest.fixture(scope="session")
def folder_of(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer_of: Callable[..., Any],
    model_of: Callable[..., Any],
) -> Callable[..., Path]:
    """The folder of such a model and tokenizer, made once."""
    made: dict[str, Path] = {}

    def make(family: str, kind: str, template: str | None = None, **changes: Any) -> Path:
        dtype, shard = changes.pop("stored", None), changes.pop("shard", "1GB")
        key = repr((family, kind, template, dtype, shard, sorted(changes.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("base") / "model"
            model = model_of(family, **changes)
            (model.to(dtype) if dtype else model).save_pretrained(folder, max_shard_size=shard)
            tokenizer_of(kind, template).save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def trained() -> Callable[..., Adapter]:
    """An adapter of a model folder whose B is not zero, so that it changes every answer."""

    def make(folder: Path, rank: int = 4, rslora: bool = False, seed: int = 0) -> Adapter:
        from nomoat.lora.model.adapter_spec import new_spec

        spec = new_spec(str(folder), rank, 2.0 * rank, rslora=rslora)
        drawn = np.random.default_rng(seed).standard_normal(spec.size)
        return Adapter(spec, (drawn * 0.05).astype(np.float32))

    return make


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Order]:
    """An order for an export into a new folder."""

    def make(target: ExportTarget, base: Path, adapter: Adapter, **more: Any) -> Order:
        facts = CardFacts("readers 12", "readers/tiny", "apache-2.0", losses={"held-out loss": 3.1})
        given: dict[str, Any] = {
            "out": tmp_path / "out",
            "name": "readers-community-12",
            "base": base,
            "base_name": "tiny",
            "base_hash": bytes(32),
            "facts": facts,
            "text": "# readers 12\n",
        }
        return Order(target=target, adapter=adapter, **(given | more))

    return make
