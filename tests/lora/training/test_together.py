"""Volunteers trained together are trained as each would have been alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.model.adapter_slot import FROZEN, attach, detach, swap
from nomoat.lora.model.base_model import BaseModel, initial_adapter, new_spec
from nomoat.lora.training.moments import Moments
from nomoat.lora.training.together import JoinedTraining, NotTogether, alike, train_together
from nomoat.lora.training.train import Given, Trained, train

SETTINGS = TrainSettings(local_steps=4, batch_size=3, seq_len=64, learning_rate=1e-2)
CLOSE = 1e-5


def spec_of(base: BaseModel, rank: int) -> AdapterSpec:
    return new_spec(base.model.config, rank, 8.0)


def started(spec: AdapterSpec, seed: int) -> Adapter:
    """An adapter in the middle of its way: B is not zero."""
    rng = np.random.default_rng(seed)
    start = initial_adapter(spec, bytes([seed]))
    return Adapter(spec, start.vector + rng.normal(0, 0.02, spec.size).astype(np.float32))


def alone(base: BaseModel, participant: JoinedTraining) -> Trained:
    """The oracle."""
    frozen = participant.frozen
    model = attach(base, participant.adapter.spec, None if frozen is None else frozen.spec)
    try:
        if frozen is not None:
            swap(model, frozen, FROZEN)
        given_ = Given(participant.moments, share=participant.share)
        inputs = participant.adapter, participant.examples, participant.settings, participant.seed
        return train(model, *inputs, lambda: 0.0, given_)
    finally:
        detach(model)


def together(
    base: BaseModel, participants: Sequence[JoinedTraining], most_tokens: int | None = None
) -> list[Trained]:
    model = attach(base, participants[0].adapter.spec)
    try:
        return train_together(model, participants, lambda: 0.0, most_tokens)
    finally:
        detach(model)


def agree(found: Trained, oracle: Trained, start: Adapter, close: float = 10 * CLOSE) -> None:
    """Adam divides by |g|: where a gradient is near nothing it makes its last bits large."""
    delta, wanted = found.vector - start.vector, oracle.vector - start.vector
    assert np.linalg.norm(delta - wanted) <= close * np.linalg.norm(wanted)
    assert found.first_loss == pytest.approx(oracle.first_loss, rel=CLOSE)
    assert found.last_loss == pytest.approx(oracle.last_loss, rel=CLOSE)
    assert (found.steps, found.tokens) == (oracle.steps, oracle.tokens)
    assert (found.moments is None) == (oracle.moments is None)
    if found.moments is not None and oracle.moments is not None:
        close = {"rtol": 1e-3, "atol": 1e-7}
        np.testing.assert_allclose(found.moments.mean, oracle.moments.mean, **close)
        np.testing.assert_allclose(found.moments.square, oracle.moments.square, **close)
        counts = (oracle.moments.steps_a, oracle.moments.steps_b)
        assert (found.moments.steps_a, found.moments.steps_b) == counts


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any], int | None]:
    """What each volunteer brings, what all have alike, tokens of a pass."""
    shared = {
        "train_a": draw(st.booleans()),
        "keep_moments": draw(st.booleans()),
    }
    shared["train_b"] = True if not shared["train_a"] else draw(st.booleans())
    each = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "rank": st.sampled_from([1, 2, 4]),
                    "rows": st.integers(1, 7),
                    "batch_size": st.integers(1, 4),
                    "local_steps": st.integers(1, 3),
                    "local_epochs": st.sampled_from([0, 0, 1]),
                    "learning_rate": st.sampled_from([1e-3, 1e-2]),
                    "prox": st.sampled_from([0.0, 0.0, 0.5]),
                    "frozen": st.booleans(),
                    "share": st.sampled_from([1.0, 0.5]),
                }
            ),
            min_size=1,
            max_size=4,
        )
    )
    return each, shared, draw(st.sampled_from([None, 64, 300]))


@settings(max_examples=12, deadline=None)
@given(plans())
def test_together_is_as_each_alone(
    base: Any, examples: Any, plan: tuple[list[dict[str, Any]], dict[str, Any], int | None]
) -> None:
    each, shared, most_tokens = plan
    participants = []
    for place, brings in enumerate(each):
        own = dict(brings)
        spec, rows, frozen = spec_of(base, own.pop("rank")), own.pop("rows"), own.pop("frozen")
        share = own.pop("share")
        moments = None
        if shared["keep_moments"] and place % 2:
            mean = np.full(spec.size, 1e-3, np.float32)
            moments = Moments(mean, mean**2 * 4, 5, 5)
        participants.append(
            JoinedTraining(
                started(spec, place),
                examples[3 * place : 3 * place + rows],
                replace(SETTINGS, **own, **shared),
                bytes([place]) * 4,
                moments,
                started(spec_of(base, 2), 50 + place) if frozen else None,
                share,
            )
        )
    found = together(base, participants, most_tokens)
    for participant, one in zip(participants, found, strict=True):
        agree(one, alone(base, participant), participant.adapter)


def test_loss_and_update_are_those_of_one_at_a_time_within_a_hundred_thousandth(
    base: Any, examples: Any
) -> None:
    some = [
        JoinedTraining(started(spec_of(base, 4), n), examples[n : n + 6], SETTINGS, bytes([n]))
        for n in range(4)
    ]
    for participant, one in zip(some, together(base, some), strict=True):
        agree(one, alone(base, participant), participant.adapter, CLOSE)


def test_what_is_frozen_comes_back_bit_for_bit(base: Any, examples: Any) -> None:
    spec = spec_of(base, 4)
    some = [
        JoinedTraining(started(spec, n), examples[:5], replace(SETTINGS, train_a=False), bytes([n]))
        for n in range(3)
    ]
    for participant, one in zip(some, together(base, some), strict=True):
        before, after = (spec.manifest.views(v) for v in (participant.adapter.vector, one.vector))
        for name in before:
            same = bool((before[name] == after[name]).all())
            assert same == name.endswith("lora_A.weight")


def test_nobodys_rows_reach_anybody_elses_adapter(base: Any, examples: Any) -> None:
    spec = spec_of(base, 4)
    mine = JoinedTraining(started(spec, 1), examples[:4], SETTINGS, b"m")
    other = JoinedTraining(started(spec, 2), examples[4:9], SETTINGS, b"o")
    another = JoinedTraining(started(spec, 2), examples[9:14], SETTINGS, b"p")
    with_one, with_other = together(base, [mine, other])[0], together(base, [mine, another])[0]
    np.testing.assert_allclose(with_one.vector, with_other.vector, rtol=0, atol=1e-6)


def test_whose_training_diverges_is_told_as_alone(base: Any, examples: Any) -> None:
    spec = spec_of(base, 4)
    mad = replace(SETTINGS, learning_rate=1e30)
    some = [
        JoinedTraining(started(spec, n), examples[:4], s, b"m")
        for n, s in ((1, SETTINGS), (2, mad))
    ]
    with pytest.raises(NomoatError, match="diverged"):
        together(base, some)
    with pytest.raises(BadData, match="nothing to train on"):
        together(base, [JoinedTraining(started(spec, 1), (), SETTINGS, b"m")])


@pytest.mark.parametrize("bound", [1e-3, 1e3], ids=["all above it", "all below it"])
def test_each_gradient_is_clipped_by_itself_and_only_above_the_bound(
    base: Any, examples: Any, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.lora.training.pieces.joint.CLIP_NORM", bound)
    monkeypatch.setattr("nomoat.lora.training.train.CLIP_NORM", bound)
    kept = replace(
        SETTINGS, keep_moments=True
    )  # Adam forgets a gradient's size, its moments do not
    settings = (kept, replace(kept, batch_size=1), replace(kept, prox=50.0))
    some = [
        JoinedTraining(started(spec_of(base, 4), n), examples[n : n + 5], each, bytes([n]))
        for n, each in enumerate(settings)
    ]
    for participant, one in zip(some, together(base, some), strict=True):
        oracle = alone(base, participant)
        agree(one, oracle, participant.adapter)
        assert one.moments is not None
        assert oracle.moments is not None
        sizes = [float(np.linalg.norm(trained.moments.mean)) for trained in (one, oracle)]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)
        assert (sizes[1] < 1e-3) == (bound == 1e-3)  # it was clipped, or not


def test_a_base_with_dropout_is_not_trained_for_several_at_once(base: Any, examples: Any) -> None:
    import torch

    spec = spec_of(base, 4)
    some = [JoinedTraining(started(spec, n), examples[:4], SETTINGS, b"m") for n in (1, 2)]
    layer = base.model.model.layers[0].mlp
    called = layer.forward
    layer.forward = lambda x: torch.nn.functional.dropout(called(x), 0.1, layer.training)
    try:
        with pytest.raises(NotTogether):
            together(base, some)
    finally:
        layer.forward = called
    assert len(together(base, some)) == 2


def test_a_layer_no_gradient_reaches_is_refused_by_name(base: Any, examples: Any) -> None:
    import torch

    spec = spec_of(base, 4)
    some = [JoinedTraining(started(spec, n), examples[:4], SETTINGS, b"m") for n in (1, 2)]
    mlp = base.model.model.layers[1].mlp
    called = mlp.forward

    def reading(x: torch.Tensor) -> torch.Tensor:
        weight = mlp.up_proj.get_base_layer().weight
        gate = mlp.act_fn(mlp.gate_proj(x))
        return mlp.down_proj(gate * torch.nn.functional.linear(x, weight))  # type: ignore[no-any-return]

    mlp.forward = reading
    try:
        with pytest.raises(BadData, match=r"cannot be trained.*layers\.1\.mlp\.up_proj"):
            together(base, some)
    finally:
        mlp.forward = called


def test_the_model_is_as_it_was_afterwards(base: Any, examples: Any) -> None:
    spec = spec_of(base, 4)
    one = JoinedTraining(started(spec, 1), examples[:4], SETTINGS, b"m")
    before = alone(base, one).vector
    together(base, [one, one])
    assert (alone(base, one).vector == before).all()


def test_trainings_of_unlike_kinds_do_not_go_together() -> None:
    assert alike([SETTINGS, replace(SETTINGS, local_steps=9, learning_rate=1.0, prox=1.0)])
    assert not alike([SETTINGS, replace(SETTINGS, train_a=False)])
    assert not alike([SETTINGS, replace(SETTINGS, seq_len=65)])
