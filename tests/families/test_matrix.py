"""Every family trains, all of its adapter moves, and plain PEFT computes the same: or one line why.

A model of a family stands for the kind: dense, mixture of experts, state space, hybrid, with eyes,
encoder. What a family cannot do is refused by name before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import batch_of
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.adapter_slot import attach, detach, swap
from nomoat.lora.model.base_model import BaseModel, initial_adapter, load
from nomoat.lora.model.examination import Examined, examine
from nomoat.lora.model.targets import LoraShape
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.train import train
from tests.families.builders import FAMILIES, build

REFUSED = {
    "bert": "is not a causal language model",
    "roberta": "is not a causal language model",
    "electra": "is not a causal language model",
    "xlnet": "is not a causal language model",
    "xlm": "is not a causal language model",
    "reformer": "cannot be trained with an adapter",
}
# A part that must be named, and words of the reason.
LEFT_OUT = {
    "mixtral": ("model.layers.*.mlp", "not made of linear layers"),
    "qwen3_moe": ("model.layers.*.mlp", "not made of linear layers"),
    "deepseek_v2": ("model.layers.*.mlp", "PEFT puts no adapter on it"),
    "deepseek_v3": ("model.layers.*.mlp", "PEFT puts no adapter on it"),
    "glm4_moe": ("model.layers.*.mlp", "PEFT puts no adapter on it"),
    "ernie4_5_moe": ("model.layers.*.mlp", "PEFT puts no adapter on it"),
    "qwen3_next": ("model.layers.*.mlp.shared_expert", "PEFT puts no adapter on it"),
    "llama4": ("model.layers.*.feed_forward.router", "not used as a linear layer"),
    "phimoe": ("model.layers.*.mlp", "not used as a linear layer"),
    "mamba": ("backbone.layers.*.mixer.dt_proj", "text never passes through it"),
    "mamba2": ("backbone.layers.*.mixer.out_proj", "incompatible with Mamba-based models"),
    "falcon_h1": ("model.layers.*.mamba.out_proj", "incompatible with Mamba-based models"),
    "gemma3 with eyes": ("model.vision_tower", "text never passes through it"),
    "bart decoder": ("model.decoder.layers.*.encoder_attn", "text never passes through it"),
}
SETTINGS = TrainSettings(local_steps=2, batch_size=4, seq_len=48, learning_rate=0.05)


@pytest.fixture
def made(tmp_path: Path, make_tokenizer: Callable[..., Any], request: Any) -> Path:
    return build(request.param, tmp_path / "base", make_tokenizer)


def families(wanted: bool) -> list[Any]:
    """Those that train, or those that are refused."""
    chosen = [name for name in FAMILIES if (name not in REFUSED) == wanted]
    return [pytest.param(name, name, id=name.replace(" ", "-")) for name in chosen]


@pytest.mark.parametrize(("made", "name"), families(False), indirect=["made"])
def test_a_family_that_cannot_be_trained_is_refused_in_one_line(made: Path, name: str) -> None:
    with pytest.raises(BadData, match=REFUSED[name]) as refusal:
        examine(load(str(made), "cpu"), LoraShape(2, 4.0))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(("made", "name"), families(True), indirect=["made"])
def test_a_family_trains_moves_everywhere_and_is_the_same_in_plain_peft(
    made: Path, name: str, tmp_path: Path, conversations: tuple[Conversation, ...]
) -> None:
    base = load(str(made), "cpu")
    found = examine(base, LoraShape(2, 4.0))
    named = {part.name: part.why for part in found.left_out}
    if name in LEFT_OUT:
        part, why = LEFT_OUT[name]
        assert why in named[part], named
    adapter, with_adapter, alone = trained(base, found, conversations)
    still = [layer.name for layer, _, b in adapter.factors() if not np.any(b)]
    assert not still
    assert np.abs(with_adapter - alone).max() > 1e-4
    save_folder(adapter, str(made), tmp_path / "adapter", "card", base.base_hash)
    in_peft, tensors = of_plain_peft(made, tmp_path / "adapter")
    assert tensors == len(adapter.spec.manifest.tensors)
    assert np.allclose(in_peft, with_adapter, atol=1e-5)


def trained(
    base: BaseModel, found: Examined, conversations: tuple[Conversation, ...]
) -> tuple[Adapter, np.ndarray, np.ndarray]:
    """The adapter after two steps, and what the model computes with it and without."""
    rows = Encoder.of(base.tokenizer, SETTINGS.seq_len).encode_all(conversations).examples
    model = attach(base, found.spec)
    padding_changes_nothing(model, rows)
    done = train(model, initial_adapter(found.spec, b"1"), rows, SETTINGS, b"s", lambda: 0.0)
    adapter = Adapter(found.spec, done.vector)
    swap(model, adapter)
    with_adapter = logits(model)
    detach(model)
    return adapter, with_adapter, logits(base.model)


def padding_changes_nothing(model: Any, rows: Sequence[Example]) -> None:
    """Two rows of unlike length lose together what each loses alone."""
    import torch

    by_length = sorted(rows, key=lambda row: len(row.input_ids))
    pair = [by_length[0], by_length[-1]]
    with torch.no_grad(), losses_of(model.eval()) as loss_of:
        together = float(loss_of(batch_of(pair), "sum"))
        alone = sum(float(loss_of(batch_of([row]), "sum")) for row in pair)
    assert batch_of(pair).mask is not None
    assert abs(together - alone) < 1e-4 * alone


def of_plain_peft(folder: Path, adapter: Path) -> tuple[np.ndarray, int]:
    """What transformers and PEFT compute with the saved adapter, and how many factors they have."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    model = PeftModel.from_pretrained(plain, str(adapter)).eval()
    factors = [name for name, _ in model.named_parameters() if ".lora_" in name]
    return logits(model), len(factors)


def logits(model: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        ids = torch.arange(20, 60).view(2, 20)
        return np.asarray(model(input_ids=ids, use_cache=False).logits.float())


@pytest.mark.parametrize("made", ["bloom", "gpt_oss"], indirect=True)
def test_an_examination_leaves_the_model_as_it_was(made: Path) -> None:
    base = load(str(made), "cpu")
    before = {key: value.clone() for key, value in base.model.state_dict().items()}
    wrote = logits(base.model)
    examine(base, LoraShape(2, 4.0))
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(bool((before[key] == after[key]).all()) for key in before)
    assert np.array_equal(logits(base.model), wrote)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
