"""A batch trained in pieces is trained as a whole, in the memory of a piece."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import batch_of, pieces
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training import train as training
from nomoat.lora.training.train import Trained, train

SETTINGS = TrainSettings(local_steps=6, batch_size=8, seq_len=64, learning_rate=1e-2)


@pytest.mark.parametrize("rows_each", [1, 2, 3, 7, 8, 100])
def test_pieces_hold_every_row_and_every_learnt_token_once(examples: Any, rows_each: int) -> None:
    batch = batch_of(examples[:8])
    width = batch.input_ids.shape[1]
    cut = list(pieces(batch, rows_each * width))
    assert np.array_equal(np.concatenate([p.input_ids for p in cut]), batch.input_ids)
    assert np.array_equal(np.concatenate([p.targets for p in cut]), batch.targets)
    for piece in cut:
        assert len(piece.input_ids) <= rows_each
        read = piece.input_ids.ravel()[piece.places + 1]  # the token each place must predict
        assert np.array_equal(read, piece.targets)


def test_a_row_longer_than_a_piece_may_be_is_a_piece_of_its_own(examples: Any) -> None:
    assert [len(p.input_ids) for p in pieces(batch_of(examples[:3]), 1)] == [1, 1, 1]


def test_training_in_pieces_ends_where_training_whole_batches_does(
    model: Any, spec: Any, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(most_tokens: int) -> Trained:
        monkeypatch.setattr(training, "CPU_TOKENS", most_tokens)
        return train(model, initial_adapter(spec, b"i"), examples, SETTINGS, b"s", lambda: 0.0)

    whole, single = trained(sys.maxsize), trained(1)
    assert single.first_loss == pytest.approx(whole.first_loss, abs=1e-6)
    assert single.last_loss == pytest.approx(whole.last_loss, abs=1e-4)
    assert single.tokens == whole.tokens
    assert np.abs(single.vector - whole.vector).max() < 1e-4
