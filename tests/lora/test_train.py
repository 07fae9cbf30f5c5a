"""Training does what a bare PyTorch loop does, the same bits every time, and nothing else."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.adapter import LORA_A, LORA_B, Adapter, AdapterSpec
from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.messages import TrainSettings
from nomoat.lora.adapter_io import extract, slot, swap
from nomoat.lora.base_model import initial_adapter
from nomoat.lora.batches import shuffled, steps_for
from nomoat.lora.encoding import Example, collate
from nomoat.lora.train import Trained, train

SETTINGS = TrainSettings(local_steps=6, batch_size=8, seq_len=64, learning_rate=1e-2)


def _clock() -> float:
    return 0.0


def _train(
    model: Any, spec: AdapterSpec, examples: Any, seed: bytes = b"s", **changes: Any
) -> Trained:
    settings = dataclasses.replace(SETTINGS, **changes)
    return train(model, initial_adapter(spec, b"i"), examples, settings, seed, _clock)


def test_training_is_that_of_a_bare_loop(
    model: Any, spec: AdapterSpec, examples: tuple[Example, ...]
) -> None:
    import torch

    ours = _train(model, spec, examples)
    swap(model, initial_adapter(spec, b"i"))
    parameters = list(slot(model, spec).values())
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = None
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    rows = {tuple(e.input_ids.tolist()): e for e in examples}
    losses, tokens = [], 0
    for batch in islice(shuffled(examples, 8, b"s"), 6):
        chosen = [next(e for ids, e in rows.items() if _is(ids, row)) for row in batch.input_ids]
        plain = {k: torch.from_numpy(v) for k, v in collate(chosen, 2).items()}
        loss = model(**plain).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        tokens += int((plain["labels"] != -100).sum())
    assert ours.first_loss == pytest.approx(losses[0], abs=1e-6)
    assert ours.last_loss == pytest.approx(losses[-1], abs=1e-4)
    assert ours.tokens == tokens
    assert ours.steps == 6
    assert np.abs(ours.vector - extract(model, spec)).max() < 1e-4


def _is(ids: tuple[int, ...], row: Any) -> bool:
    return row[: len(ids)].tolist() == list(ids) and not row[len(ids) :].any()


def test_training_lowers_the_loss(model: Any, spec: AdapterSpec, examples: Any) -> None:
    done = _train(model, spec, examples, local_steps=30)
    assert done.last_loss < 0.7 * done.first_loss


def test_the_same_seed_gives_the_same_bits_and_no_optimiser_state_is_left(
    model: Any, spec: AdapterSpec, examples: Any
) -> None:
    # Trap 10: the optimiser starts anew; moments kept from the first run would change the second.
    first = _train(model, spec, examples)
    assert np.array_equal(_train(model, spec, examples).vector, first.vector)
    assert not np.array_equal(_train(model, spec, examples, b"t").vector, first.vector)


@pytest.mark.parametrize(("frozen", "trained"), [(LORA_A, LORA_B), (LORA_B, LORA_A)])
def test_frozen_factors_come_back_bit_for_bit(
    model: Any, spec: AdapterSpec, examples: Any, frozen: str, trained: str
) -> None:
    rng = np.random.default_rng(1)
    start = Adapter(spec, (rng.standard_normal(spec.size) * 0.1).astype(np.float32))
    settings = dataclasses.replace(SETTINGS, train_a=frozen != LORA_A, train_b=frozen != LORA_B)
    done = train(model, start, examples, settings, b"s", _clock)
    before, after = spec.manifest.views(start.vector), spec.manifest.views(done.vector)
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.endswith(frozen)
    idle = [p.grad is None for n, p in slot(model, spec).items() if n.endswith(frozen)]
    assert all(idle)  # no gradient was computed for them
    both = _train(model, spec, examples)  # what was frozen before is trained again
    assert all(value.any() for value in spec.manifest.views(both.vector).values())


def test_both_factors_frozen_is_refused(model: Any, spec: AdapterSpec, examples: Any) -> None:
    with pytest.raises(NomoatError, match="both factors frozen"):
        _train(model, spec, examples, train_a=False, train_b=False)


def test_the_base_is_never_changed(model: Any, spec: AdapterSpec, examples: Any, base: Any) -> None:
    before = {n: p.detach().clone() for n, p in base.model.named_parameters() if "lora_" not in n}
    _train(model, spec, examples)
    for name, parameter in base.model.named_parameters():
        if "lora_" not in name:
            assert parameter.equal(before[name])
            assert parameter.grad is None


def test_divergence_is_one_clear_error(model: Any, spec: AdapterSpec, examples: Any) -> None:
    start = initial_adapter(spec, b"i")
    broken = Adapter(spec, np.where(np.arange(spec.size) == 5, np.nan, start.vector))
    with pytest.raises(NomoatError, match=r"training diverged at step 1 .*--lr"):
        train(model, broken, examples, SETTINGS, b"s", _clock)
    assert np.isfinite(_train(model, spec, examples).vector).all()  # and nothing of it stays


def test_nothing_to_train_on_is_bad_data(model: Any, spec: AdapterSpec) -> None:
    with pytest.raises(BadData, match="nothing to train on"):
        _train(model, spec, ())


def test_epochs_replace_steps(model: Any, spec: AdapterSpec, examples: Any) -> None:
    assert _train(model, spec, examples[:20], local_epochs=2).steps == 5  # ⌈2 · 20 / 8⌉
    assert _train(model, spec, examples[:3], local_epochs=4).steps == 4  # batches of 3
    assert steps_for(1, 16, 3) == 3


def test_seconds_are_the_callers_clock(model: Any, spec: AdapterSpec, examples: Any) -> None:
    ticks = iter((10.0, 12.5))
    start = initial_adapter(spec, b"i")
    done = train(model, start, examples, SETTINGS, b"s", lambda: next(ticks))
    assert done.seconds == 2.5


def _rows(examples: Any, size: int, seed: bytes, batches: int) -> list[list[int]]:
    known = {tuple(e.input_ids.tolist()): i for i, e in enumerate(examples)}
    return [
        [next(i for ids, i in known.items() if _is(ids, row)) for row in batch.input_ids]
        for batch in islice(shuffled(examples, size, seed), batches)
    ]


def test_every_pass_visits_every_row_once_in_a_new_order(examples: tuple[Example, ...]) -> None:
    # Trap 7: a fixed order with few steps would show the same rows round after round.
    rows = [i for batch in _rows(examples, 8, b"s", 15) for i in batch]  # 40 rows: 3 passes
    passes = [rows[0:40], rows[40:80], rows[80:120]]
    assert all(sorted(one) == list(range(40)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    first = {seed: _rows(examples, 8, seed, 1)[0] for seed in (b"round 1", b"round 2", b"bob")}
    assert len({tuple(sorted(batch)) for batch in first.values()}) == 3


def test_fewer_rows_than_a_batch_make_smaller_batches(examples: tuple[Example, ...]) -> None:
    assert [sorted(batch) for batch in _rows(examples[:3], 8, b"s", 4)] == [[0, 1, 2]] * 4
