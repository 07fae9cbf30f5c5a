"""A tiny Llama with random weights and a byte-level BPE tokenizer: nothing is fetched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder, Example

SEED_TEXT = [
    "The mail server keeps a copy of every message until the volunteer has read it.",
    "Return the name of the file, or None if there is no such file in this folder.",
    "Wait until the task is done and give its result; raise an error if it was cancelled.",
    "Ünïcode und Umlaute: größer, schöner, 東京 and 🙂 are text like any other.",
    "user assistant system reply question hello world",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """A fast tokenizer: byte-level BPE, <s> and </s>, and a chat template if one is given."""

    def make(chat_template: str | None = None, **special: Any) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        core.train_from_iterator(SEED_TEXT, trainer)
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", **special}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """A Llama of two layers with random weights, large enough that an adapter shows."""

    def make(seed: int = 0) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
        )
        return LlamaForCausalLM(config)

    return make


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory,
    make_tokenizer: Callable[..., Any],
    make_model: Callable[..., Any],
) -> Path:
    """A model folder without a chat template."""
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(model_folder: Path) -> Any:
    """The model of `model_folder`, loaded."""
    from nomoat.lora.model.base_model import load

    return load(str(model_folder), "cpu")


@pytest.fixture(scope="session")
def spec(model_folder: Path) -> AdapterSpec:
    """r = 4, α = 8 on every linear layer."""
    from nomoat.lora.model.base_model import new_spec

    return new_spec(str(model_folder), 4, 8.0)


@pytest.fixture
def model(base: Any, spec: AdapterSpec) -> Iterator[Any]:
    """The base with a slot of `spec`."""
    from nomoat.lora.model.adapter_slot import attach, detach

    attached = attach(base, spec)
    yield attached
    detach(attached)


@pytest.fixture(scope="session")
def conversations() -> tuple[Conversation, ...]:
    """Forty short exchanges."""
    words = ["alpha", "beta", "gamma", "delta", "mail", "file", "task", "error"]
    return tuple(
        Conversation(
            (
                ChatTurn("user", f"{words[i % 8]} {i}?"),
                ChatTurn(
                    "assistant", f"The {words[(i * 3) % 8]} of " + "very " * (i % 5) + "number."
                ),
            ),
            {"topic": words[i % 3]},
            f"rows.jsonl:{i + 1}",
        )
        for i in range(40)
    )


@pytest.fixture(scope="session")
def examples(base: Any, conversations: tuple[Conversation, ...]) -> tuple[Example, ...]:
    """`conversations`, encoded."""
    return Encoder.of(base.tokenizer, 64).encode_all(conversations).examples


@pytest.fixture(scope="session")
def chatml() -> str:
    """A chat template that marks no generation, as most."""
    return CHATML
