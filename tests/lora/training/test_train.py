"""Training does what a bare PyTorch loop does, the same bits every time, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, LocalProtocolError, NomoatError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter, AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import Batch, batch_of, collate, shuffled_rows, steps_for
from nomoat.lora.data.encoding import Example
from nomoat.lora.model.adapter_slot import FROZEN, attach, detach, extract, slot, swap
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.moments import Moments
from nomoat.lora.training.train import Given, Trained, train

SETTINGS = TrainSettings(local_steps=6, batch_size=8, seq_len=64, learning_rate=1e-2)


def shuffled(examples: Sequence[Example], size: int, seed: bytes) -> Iterator[Batch]:
    """Batches without end, of the rows that training takes in this order."""
    for rows in shuffled_rows(examples, size, seed):
        yield batch_of([examples[row] for row in rows])


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


def _part(adapter: Adapter, chosen: tuple[int, ...]) -> Adapter:
    return modules.select(adapter, chosen)


def _drawn(spec: AdapterSpec, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(spec, (rng.standard_normal(spec.size) * 0.1).astype(np.float32))


def test_frozen_modules_take_part_and_stay_as_they_are(
    base: Any, spec: AdapterSpec, examples: Any
) -> None:
    """Trained beside frozen modules, a module moves as it would in the whole adapter."""
    import torch

    whole = _drawn(spec, 3)
    trained, frozen = _part(whole, (2, 0)), _part(whole, (1, 3))
    once = dataclasses.replace(SETTINGS, local_steps=1)
    model = attach(base, trained.spec, frozen.spec)
    try:
        swap(model, frozen, FROZEN)
        done = train(model, trained, examples, once, b"s", _clock)
        kept = {n: p.detach().clone() for n, p in slot(model, frozen.spec, FROZEN).items()}
        assert all(p.grad is None for p in slot(model, frozen.spec, FROZEN).values())
    finally:
        detach(model)
    views = frozen.spec.manifest.views(frozen.vector)
    assert all(torch.equal(kept[name], torch.from_numpy(views[name])) for name in kept)
    model = attach(base, spec)
    try:
        together = train(model, whole, examples, once, b"s", _clock)
    finally:
        detach(model)
    assert done.first_loss == pytest.approx(together.first_loss, abs=1e-5)
    expected = _part(Adapter(spec, together.vector), (2, 0))
    moved = np.abs(expected.vector - trained.vector)
    assert moved.max() > 5e-3
    # AdamW's first step has the size of the learning rate whatever the gradient's norm.
    assert np.abs(done.vector - expected.vector).max() < 0.02 * moved.max()


def test_a_slot_of_another_place_is_never_taken_for_the_trained_one(
    base: Any, spec: AdapterSpec
) -> None:
    whole = _drawn(spec, 4)
    one, two = _part(whole, (0, 1, 2)), _part(whole, (3,))
    model = attach(base, one.spec, two.spec)
    try:
        swap(model, two, FROZEN)
        swap(model, one)
        assert np.array_equal(extract(model, one.spec), one.vector)
    finally:
        detach(model)


def test_a_proximal_term_holds_the_adapter_near_its_start(
    model: Any, spec: AdapterSpec, examples: Any
) -> None:
    start = initial_adapter(spec, b"i").vector
    far = [
        float(np.linalg.norm(_train(model, spec, examples, prox=mu, local_steps=12).vector - start))
        for mu in (0.0, 0.1, 10.0)
    ]
    assert far[0] > far[1] > far[2] > 0
    first = [_train(model, spec, examples, prox=mu, local_steps=1) for mu in (0.0, 10.0)]
    assert np.array_equal(first[0].vector, first[1].vector)  # nothing to hold before a step
    assert first[0].first_loss == first[1].first_loss


def test_the_proximal_gradient_is_that_of_the_term_written_out(
    model: Any, spec: AdapterSpec, examples: Any
) -> None:
    import torch

    start = _drawn(spec, 5)
    settings = dataclasses.replace(SETTINGS, local_steps=3, prox=2.0)
    ours = train(model, start, examples, settings, b"s", _clock)
    swap(model, start)
    parameters = list(slot(model, spec).values())
    origin = [p.detach().clone() for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = None
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    with losses_of(model) as loss_of:
        for batch in islice(shuffled(examples, 8, b"s"), 3):
            pull = sum(((p - o) ** 2).sum() for p, o in zip(parameters, origin, strict=True))
            optimizer.zero_grad()
            (loss_of(batch, "mean") + 1.0 * pull).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    assert np.abs(ours.vector - extract(model, spec)).max() < 1e-4


@pytest.mark.parametrize("factors", [(True, True), (True, False), (False, True)])
def test_kept_moments_make_two_rounds_one_training(
    model: Any, spec: AdapterSpec, examples: Any, factors: tuple[bool, bool]
) -> None:
    """Trap 10: optimiser state across rounds is a policy, reset or keep, and both are tested."""
    rows = examples[:8]  # one batch: both halves see the same rows, whatever their seed
    start = _drawn(spec, 6)
    settings = dataclasses.replace(
        SETTINGS, keep_moments=True, train_a=factors[0], train_b=factors[1]
    )
    whole = train(model, start, rows, dataclasses.replace(settings, local_steps=6), b"s", _clock)
    half = dataclasses.replace(settings, local_steps=3)
    first = train(model, start, rows, half, b"s", _clock)
    assert first.moments is not None
    between = Adapter(spec, first.vector)
    second = train(model, between, rows, half, b"t", _clock, Given(first.moments))
    assert np.abs(second.vector - whole.vector).max() < 1e-4
    assert second.moments is not None
    assert second.moments.steps_a == 6 * factors[0]
    assert second.moments.steps_b == 6 * factors[1]
    reset = train(model, between, rows, dataclasses.replace(half, keep_moments=False), b"t", _clock)
    assert reset.moments is None
    assert np.abs(reset.vector - whole.vector).max() > 1e-3


def test_moments_of_a_frozen_factor_wait_for_its_next_round(
    model: Any, spec: AdapterSpec, examples: Any
) -> None:
    keep = dataclasses.replace(SETTINGS, keep_moments=True, local_steps=2)
    only_b = dataclasses.replace(keep, train_a=False)
    start = _drawn(spec, 7)
    both = train(model, start, examples, keep, b"s", _clock).moments
    after = train(model, start, examples, only_b, b"s", _clock, Given(both)).moments
    assert both is not None
    assert after is not None
    assert (after.steps_a, after.steps_b) == (2, 4)
    for name, place in spec.manifest.slices.items():
        same = np.array_equal(after.mean[place], both.mean[place])
        assert same == name.endswith(LORA_A)


def test_moments_of_another_adapter_are_refused(
    model: Any, spec: AdapterSpec, examples: Any
) -> None:
    other = Moments(np.zeros(3, np.float32), np.zeros(3, np.float32), 1, 1)
    settings = dataclasses.replace(SETTINGS, keep_moments=True)
    with pytest.raises(LocalProtocolError, match="another shape"):
        train(model, initial_adapter(spec, b"i"), examples, settings, b"s", _clock, Given(other))
