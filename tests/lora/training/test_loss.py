"""Computing logits only where a token is learnt changes nothing but the time it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nomoat.lora.data.batches import batch_of, collate
from nomoat.lora.data.encoding import Example
from nomoat.lora.training.loss import losses_of

SMALL = {"vocab_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4}


def _llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SMALL, hidden_size=32, intermediate_size=48, num_key_value_heads=2)


def _qwen2() -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**SMALL, hidden_size=32, intermediate_size=48, num_key_value_heads=2)


def _gemma2() -> Any:  # caps its logits after the head
    from transformers import Gemma2Config

    sizes = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "num_key_value_heads": 2}
    return Gemma2Config(**SMALL, **sizes, final_logit_softcapping=2.0, sliding_window=8)


def _granite() -> Any:  # divides its logits after the head
    from transformers import GraniteConfig

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2}
    return GraniteConfig(**SMALL, **sizes, logits_scaling=4.0)


def _gpt2() -> Any:
    from transformers import GPT2Config

    return GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64)


def _rows() -> list[Example]:
    rng = np.random.default_rng(0)
    rows = []
    for n in (5, 30, 17, 2):
        trained = np.arange(n) >= n // 3
        trained[0] = False
        rows.append(Example(rng.integers(0, 320, n, np.int32), trained))
    return rows


@pytest.mark.parametrize("config", [_llama, _qwen2, _gemma2, _granite, _gpt2])
def test_loss_and_gradients_are_those_of_the_whole_model(config: Callable[[], Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    inner = AutoModelForCausalLM.from_config(config()).eval()
    settings = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model: Any = get_peft_model(inner, settings)
    plain = {name: torch.from_numpy(value) for name, value in collate(_rows(), 7).items()}

    expected = model(**plain).loss
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with losses_of(model) as loss_of:
        loss = loss_of(batch_of(_rows()), "mean")
        loss.backward()
        total = loss_of(batch_of(_rows()), "sum")

    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    learnt = sum(int(row.trained.sum()) for row in _rows())
    assert total.item() / learnt == pytest.approx(expected.item(), abs=1e-6)
    assert gradients
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name
    assert model(**plain).logits.shape == (4, 30, 320)  # the hook is gone
