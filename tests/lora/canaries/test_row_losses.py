"""Each row is read by itself, as evaluation reads all of them, while there is time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.canaries.row_losses import TOGETHER, row_losses
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.evaluate import evaluate


def test_rows_are_read_as_evaluation_reads_each_alone_and_in_order(
    model: Any, base: Any, spec: AdapterSpec, conversations: tuple[Conversation, ...]
) -> None:
    rng = np.random.default_rng(1)
    start = initial_adapter(spec, b"i")
    noisy = Adapter(spec, start.vector + rng.normal(0, 0.05, spec.size).astype(np.float32))
    encoder, rows = Encoder.of(base.tokenizer, 128), conversations[:11]
    for adapter in (noisy, None):
        found = row_losses(model, adapter, encoder, rows, math.inf, lambda: 0.0)
        alone = [evaluate(model, adapter, encoder.encode_all([row]).examples, 1) for row in rows]
        assert [row.tokens for row in found] == [one.tokens for one in alone]
        assert [row.loss for row in found] == pytest.approx([one.loss for one in alone], abs=1e-4)


def test_no_row_is_begun_after_the_time_is_up_and_none_is_cut(
    model: Any, base: Any, conversations: tuple[Conversation, ...]
) -> None:
    encoder = Encoder.of(base.tokenizer, 128)
    clock: Callable[[], float] = itertools.chain([0.0, 1.0], itertools.repeat(5.0)).__next__
    assert len(row_losses(model, None, encoder, conversations, 5.0, clock)) == TOGETHER
    long = replace(
        conversations[0], turns=(ChatTurn("user", "x"), ChatTurn("assistant", "y " * 200))
    )
    with pytest.raises(BadData, match=r"rows\.jsonl:1: the model does not read"):
        row_losses(model, None, encoder, [long], 5.0, lambda: 0.0)
