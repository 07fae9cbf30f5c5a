"""Rows on architectures: a small random model of each loads, trains, resumes and evaluates."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.gpu_check.row import CheckPlace, GpuRow, expect
from nomoat.lora.gpu_check.sample_task import SEED, apart, examples_for, step_gradient

if TYPE_CHECKING:
    from pathlib import Path

    from nomoat.lora.training.checkpoint import TrainingCheckpoint

VOCABULARY: Final = 2112  # more than the tokenizer has that all get: some add to it
COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.05,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 256,
    "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,  # draws differ from a processor's
}  # fmt: skip
KINDS: Final[dict[str, dict[str, Any]]] = {  # model_type → what differs
    "llama": COMMON,
    "mistral": {**COMMON, "sliding_window": 64},
    "qwen2": COMMON,
    "qwen3": {**COMMON, "head_dim": 32},
    "gemma2": {**COMMON, "head_dim": 32},
    "gemma3_text": {**COMMON, "head_dim": 32},
    "phi": {**COMMON, "num_key_value_heads": 4},
    "phi3": COMMON,
    "gpt2": GPT,
    "opt": {
        "vocab_size": VOCABULARY, "hidden_size": 128, "ffn_dim": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256, "word_embed_proj_dim": 128,
        "pad_token_id": 0, "dropout": 0.0,
    },
    "mixtral": {**COMMON, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        **COMMON, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
    },
}  # fmt: skip
SETTINGS: Final = TrainSettings(local_steps=10, batch_size=4, seq_len=96, learning_rate=1e-3)
LOSS_WITHIN: Final = 0.02
SAME_WITHIN: Final = 0.02  # of the way trained: kernels may add in another order


def whole_way(kind: str, place: CheckPlace) -> str:
    """Load, examine, compare with a processor, train, train with a pause, evaluate."""
    from nomoat.lora.model.adapter_slot import attach
    from nomoat.lora.model.adapter_spec import initial_adapter
    from nomoat.lora.model.base_model import load
    from nomoat.lora.model.examination import examine
    from nomoat.lora.model.targets import LoraShape

    folder = str(_made(kind, place))
    base = load(folder, place.device)
    spec = examine(base, LoraShape(4, 8.0)).spec
    examples = examples_for(base.tokenizer)
    loss, _ = step_gradient(base, spec, examples[:4])
    wanted, _ = step_gradient(load(folder, "cpu"), spec, examples[:4])
    expect(abs(loss / wanted - 1) < LOSS_WITHIN, f"loss {loss:.4f}, {wanted:.4f} on a processor")
    start = initial_adapter(spec, SEED)
    model = attach(base, spec)
    once = _trained(model, start, examples, _Uninterrupted())
    interrupted = _Interrupted()
    resumed = _trained(model, start, examples, interrupted)
    difference = apart(resumed.vector - start.vector, once.vector - start.vector)
    expect(interrupted.paused, "the run was not interrupted")
    expect(difference < SAME_WITHIN, f"a resumed run is {difference:.1%} off")
    after = _loss(model, spec, once.vector, examples)
    text = f"loss {loss:.3f} ({wanted:.3f}), {once.first_loss:.3f} → {after:.3f} trained"
    return expect(math.isfinite(after) and after < once.first_loss, text)


def _made(kind: str, place: CheckPlace) -> Path:
    """Write a random model of this kind, with the tokenizer of the base at hand."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(7)
    folder = place.folder / "base"
    config: Any = AutoConfig.for_model(kind, **KINDS[kind])
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(
        place.model, local_files_only=True, trust_remote_code=False
    ).save_pretrained(folder)
    return folder


class _Uninterrupted:
    """Nothing comes between."""

    between: Callable[[Callable[[], TrainingCheckpoint]], None] | None = None
    kept: TrainingCheckpoint | None = None


class _Interrupted(_Uninterrupted):
    """Keeps a checkpoint once two steps are done, and ends the run there."""

    def __init__(self) -> None:
        self.between = self._pause
        self.paused = False

    def _pause(self, taken: Callable[[], TrainingCheckpoint]) -> None:
        from nomoat.lora.training.checkpoint import Paused

        checkpoint = taken()
        if not self.paused and checkpoint.place.step == 2:
            self.paused, self.kept = True, checkpoint
            raise Paused


def _trained(model: Any, start: Any, examples: Any, hook: _Uninterrupted) -> Any:
    """Train, and go on from the checkpoint if the hook ended the run."""
    from nomoat.lora.training.checkpoint import Paused
    from nomoat.lora.training.progress import Breaks
    from nomoat.lora.training.train import Given, train

    while True:
        breaks = Breaks(between=hook.between, resume=hook.kept)
        try:
            return train(model, start, examples, SETTINGS, SEED, lambda: 0.0, Given(breaks=breaks))
        except Paused:
            continue


def _loss(model: Any, spec: Any, vector: Any, examples: Any) -> float:
    from nomoat.aggregation.protocol.adapter import Adapter
    from nomoat.lora.training.evaluate import evaluate

    return evaluate(model, Adapter(spec, vector), examples, SETTINGS.batch_size).loss


def rows_of_families() -> list[GpuRow]:
    """One for each."""
    expected = "as on a processor, trains, resumes, evaluates"
    return [GpuRow(kind, expected, 110, partial(whole_way, kind)) for kind in KINDS]
