"""A layer that a first step does not move is refused by its name; data that says little is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.encoding import Example
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.train import Trained, train

SETTINGS = TrainSettings(local_steps=2, batch_size=4, seq_len=64, learning_rate=0.01)


def trained(
    model: Any, spec: AdapterSpec, examples: tuple[Example, ...], **changes: Any
) -> Trained:
    from dataclasses import replace

    settings = replace(SETTINGS, **changes)
    return train(model, initial_adapter(spec, b"1"), examples, settings, b"s", lambda: 0.0)


@pytest.fixture
def unused_up_proj(model: Any) -> Any:
    """The model, one of its layers no longer called: its weight is read instead."""
    import torch

    mlp = model.get_base_model().model.layers[1].mlp
    called = mlp.forward

    def reading(x: torch.Tensor) -> torch.Tensor:
        up = torch.nn.functional.linear(x, mlp.up_proj.weight)
        gated: torch.Tensor = mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * up)
        return gated

    mlp.forward = reading
    yield model
    mlp.forward = called


def test_a_layer_whose_weight_is_read_but_never_called_is_refused_by_name(
    unused_up_proj: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    wanted = r"1 of the adapter's 14 layers cannot be trained.*layers\.1\.mlp\.up_proj"
    with pytest.raises(BadData, match=wanted):
        trained(unused_up_proj, spec, examples)


def test_every_layer_of_a_plain_model_moves_with_either_factor(
    model: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    assert trained(model, spec, examples).steps == 2
    assert trained(model, spec, examples, train_a=False).steps == 2
    assert trained(model, spec, examples, train_b=False).steps == 2  # B = 0: nothing moves yet


def test_rows_of_one_token_accuse_no_layer(
    model: Any, spec: AdapterSpec, row: Callable[..., Example]
) -> None:
    # Attention over one position has no gradient in queries and keys, in any model.
    assert trained(model, spec, (row(20, 21), row(22, 23))).steps == 2


def test_rows_of_one_repeated_token_accuse_no_layer(
    model: Any, spec: AdapterSpec, row: Callable[..., Example]
) -> None:
    assert trained(model, spec, (row(*[20] * 12), row(*[20] * 9))).steps == 2


@pytest.fixture
def row() -> Callable[..., Example]:
    """An example of these tokens, all but the first trained on."""

    def make(*tokens: int) -> Example:
        learnt = np.ones(len(tokens), np.bool_)
        learnt[0] = False
        return Example(np.array(tokens, np.int32), learnt)

    return make
