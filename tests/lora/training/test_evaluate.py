"""The loss reported is the mean over every learnt token, however the rows are batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import Batch, collate
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.model.adapter_slot import swap
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.evaluate import evaluate, room_to_answer, sample
from nomoat.lora.training.loss import Losses
from nomoat.lora.training.train import CPU_TOKENS, train


def _adapter(spec: AdapterSpec) -> Adapter:
    rng = np.random.default_rng(9)
    return Adapter(spec, (rng.standard_normal(spec.size) * 0.1).astype(np.float32))


def _plain_loss(model: Any, examples: tuple[Example, ...]) -> tuple[float, int]:
    """Row by row with the whole model's own loss, weighted by learnt tokens."""
    import torch

    total, tokens = 0.0, 0
    for example in examples:
        batch = {k: torch.from_numpy(v) for k, v in collate([example], 0).items()}
        count = int(example.trained.sum())
        with torch.no_grad():
            total += model(**batch).loss.item() * count
        tokens += count
    return total / tokens, tokens


def test_loss_is_the_mean_over_learnt_tokens(
    model: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    adapter = _adapter(spec)
    measured = evaluate(model, adapter, examples, 7)
    swap(model, adapter)
    expected, tokens = _plain_loss(model, examples)
    assert measured.loss == pytest.approx(expected, abs=1e-5)
    assert measured.tokens == tokens
    assert evaluate(model, adapter, examples, 7) == measured
    assert evaluate(model, adapter, examples, 40).loss == pytest.approx(expected, abs=1e-5)


def test_without_an_adapter_it_is_the_base_that_is_measured(
    model: Any, base: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    swap(model, _adapter(spec))
    measured = evaluate(model, None, examples, 8)
    with model.disable_adapter():
        expected, _ = _plain_loss(model, examples)
    assert measured.loss == pytest.approx(expected, abs=1e-5)
    assert measured.loss == evaluate(model, initial_adapter(spec, b"x"), examples, 8).loss
    assert measured.loss != pytest.approx(evaluate(model, _adapter(spec), examples, 8).loss)


def _rows_seen(monkeypatch: pytest.MonkeyPatch, fits: int = 1000) -> list[tuple[int, int]]:
    """Shapes of what goes through the model from now on, where only `fits` rows have room."""
    import torch

    real, seen = Losses.__call__, []

    def noted(self: Losses, batch: Batch, reduction: str) -> Any:
        if len(batch.input_ids) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(batch.input_ids.shape)
        return real(self, batch, reduction)

    monkeypatch.setattr(Losses, "__call__", noted)
    return seen


@pytest.mark.parametrize("most_tokens", [None, 10_000, 100, 1])
def test_no_forward_pass_is_larger_than_a_training_may_have_it(
    model: Any, spec: AdapterSpec, examples: Any, monkeypatch: pytest.MonkeyPatch, most_tokens: Any
) -> None:
    whole = evaluate(model, _adapter(spec), examples, 5)
    seen = _rows_seen(monkeypatch)
    cut = evaluate(model, _adapter(spec), examples, len(examples), most_tokens)
    assert sum(rows for rows, _ in seen) == len(examples)
    assert max(rows for rows, _ in seen) > 1 or most_tokens == 1
    limit = min(CPU_TOKENS, most_tokens or CPU_TOKENS)
    assert all(rows * width <= limit or rows == 1 for rows, width in seen)
    assert cut.loss == pytest.approx(whole.loss, abs=1e-6)
    assert cut.tokens == whole.tokens
    assert evaluate(model, _adapter(spec), examples, len(examples), most_tokens) == cut


def test_memory_that_runs_out_halves_the_pieces_and_every_row_is_measured_once(
    model: Any, spec: AdapterSpec, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    whole = evaluate(model, _adapter(spec), examples, 8)
    with monkeypatch.context() as patch:
        seen = _rows_seen(patch, fits=2)
        halved = evaluate(model, _adapter(spec), examples, 8)
        assert {rows for rows, _ in seen} <= {1, 2}
        assert sum(rows for rows, _ in seen) == len(examples)
    assert halved.loss == pytest.approx(whole.loss, abs=1e-6)
    assert halved.tokens == whole.tokens
    _rows_seen(monkeypatch, fits=0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(model, _adapter(spec), examples, 8)


def test_a_broken_adapter_and_no_rows_are_errors(
    model: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    with pytest.raises(NomoatError, match="not a finite number"):
        evaluate(model, Adapter(spec, np.full(spec.size, np.nan, np.float32)), examples, 8)
    with pytest.raises(BadData, match="nothing to evaluate on"):
        evaluate(model, None, (), 8)


def test_a_sample_stops_at_the_eos_it_was_trained_on(
    model: Any, base: Any, spec: AdapterSpec, conversations: Any
) -> None:
    encoder = Encoder.of(base.tokenizer, 64)
    examples = encoder.encode_all(conversations[:1]).examples
    settings = TrainSettings(local_steps=60, batch_size=4, seq_len=64, learning_rate=2e-2)
    start = initial_adapter(spec, b"i")
    vector = train(model, start, examples, settings, b"s", lambda: 0.0).vector
    question, reply = (turn.text for turn in conversations[0].turns)
    assert sample(model, Adapter(spec, vector), encoder, question, 40) == reply
    assert sample(model, None, encoder, question, 40) != reply
    assert len(sample(model, None, encoder, question, 1)) <= 12  # one token


def test_a_text_is_continued_without_a_line_break(model: Any, base: Any) -> None:
    encoder = Encoder.of(base.tokenizer, 64)
    ids = encoder.prompt_ids("once upon", continue_text=True)
    assert base.tokenizer.decode(ids) == "<s>once upon"
    assert base.tokenizer.decode(encoder.prompt_ids("once upon")) == "<s>once upon\n"


@pytest.mark.parametrize(
    ("prompt", "wanted", "context", "kept", "most"),
    [
        (10, 48, None, 10, 48),  # no end: everything
        (10, 48, 256, 10, 48),
        (10, 48, 48, 10, 38),  # less is written
        (200, 48, 48, 24, 24),  # and a long prompt loses its beginning
        (200, 8, 48, 40, 8),
        (5, 8, 1, 1, 0),
    ],
)
def test_prompt_and_answer_stay_inside_what_the_model_reads(
    prompt: int, wanted: int, context: int | None, kept: int, most: int
) -> None:
    ids, room = room_to_answer(list(range(prompt)), wanted, context)
    assert ids == list(range(prompt))[-kept:]
    assert (len(ids), room) == (kept, most)
    assert context is None or len(ids) + room <= context
