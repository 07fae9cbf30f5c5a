"""A base whose parts lie on two cards, or beside one, computes and trains what one card does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.gpu_check.sample_task import apart, step_gradient
from nomoat.lora.layout.parts import Layout, parts_of
from nomoat.lora.layout.placing import is_laid_out, place
from nomoat.lora.model.adapter_slot import attach, detach
from nomoat.lora.model.base_model import BaseModel, initial_adapter, load, new_spec
from nomoat.lora.model.files import config
from nomoat.lora.model.shape import ModelShape
from nomoat.lora.training import optimizer
from nomoat.lora.training.checkpoint import Paused, TrainingCheckpoint
from nomoat.lora.training.evaluate import evaluate, sample
from nomoat.lora.training.pieces import scattered
from nomoat.lora.training.progress import Breaks
from nomoat.lora.training.train import Given, Trained, train
from tests.fake_gpu.cards import Cards

CARDS = (torch.device("cpu:1"), torch.device("cpu:2"))
OVER, BESIDE, BOTH = Layout(True), Layout(False, True), Layout(True, True)
SETTINGS = TrainSettings(local_steps=8, batch_size=5, seq_len=64, learning_rate=1e-2)


@pytest.fixture(scope="module", params=["tied", "two matrices"])
def folder(
    request: Any, model_folder: Path, make_model: Any, make_tokenizer: Any, tmp_path_factory: Any
) -> Path:
    """A base whose head is its embedding, and one whose head is not."""
    if request.param == "tied":
        return model_folder
    made: Path = tmp_path_factory.mktemp("untied")
    model = make_model()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 0.7)
    model.config.tie_word_embeddings = False
    model.save_pretrained(made)
    make_tokenizer().save_pretrained(made)
    return made


def laid_out(folder: Path, layout: Layout) -> BaseModel:
    """The base on cards that refuse to compute with each other's tensors."""
    base = load(str(folder), "cpu")
    shape = ModelShape.from_config(config(folder))
    place(base.model, parts_of(shape, layout, None, (1 << 30, 1 << 30)), CARDS)
    return base


@pytest.mark.parametrize("layout", [OVER, BESIDE, BOTH])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_step_has_the_loss_and_the_gradient_of_a_base_held_whole(
    folder: Path, examples: Any, layout: Layout, checkpointing: bool
) -> None:
    spec = new_spec(str(folder), 4, 8.0)
    wanted_loss, wanted = step_gradient(load(str(folder), "cpu"), spec, examples[:6])
    with Cards() as cards:
        base = laid_out(folder, layout)
        if checkpointing:
            model: Any = base.model
            model.gradient_checkpointing_enable({"use_reentrant": False})
        loss, gradient = step_gradient(base, spec, examples[:6])
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert apart(gradient, wanted) < 1e-6
    assert ((1, 2) in cards.moves) == layout.over_gpus


def test_the_cards_of_these_tests_refuse_what_gpus_refuse() -> None:
    with Cards():
        here, there = torch.ones(2).to(CARDS[0]), torch.ones(2).to(CARDS[1])
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        assert (here + there.to(CARDS[0])).tolist() == [2, 2]


def test_the_parts_lie_where_the_layout_says(folder: Path) -> None:
    shape = ModelShape.from_config(config(folder))
    for layout, embedding, head in ((OVER, 1, 2), (BESIDE, None, 1), (BOTH, None, 2)):
        with Cards() as cards:
            inner: Any = laid_out(folder, layout).model
            layers = [cards.card(x.self_attn.q_proj.weight) for x in inner.model.layers]
            matrices = [inner.model.embed_tokens.weight, inner.lm_head.weight]
            found = [cards.card(matrix) for matrix in matrices]
        assert layers == ([1, 2] if layout.over_gpus else [1, 1])
        tied = [None, None] if layout.embedding_in_ram else [2, 2]
        assert found == (tied if shape.tied else [embedding, head])


@pytest.fixture
def second_layer_apart(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Have the factors of the second layer taken for another card's: here all places are alike."""

    def use(model: Any) -> None:
        away = {id(p) for name, p in model.named_parameters() if ".layers.1." in name}

        def is_away(parameter: Any, flat: Any) -> bool:
            return id(parameter) in away

        monkeypatch.setattr(scattered, "apart", is_away)
        monkeypatch.setattr(optimizer, "apart", is_away)

    return use


def trained(model: Any, spec: Any, examples: Any, **given: Any) -> Trained:
    start = initial_adapter(spec, b"i")
    settings = given.pop("settings", SETTINGS)
    return train(model, start, examples, settings, b"s", lambda: 0.0, Given(**given))


@pytest.mark.parametrize("settings", [
    SETTINGS, replace(SETTINGS, prox=0.5, train_a=False), replace(SETTINGS, keep_moments=True),
], ids=["plain", "prox, one factor", "moments"])  # fmt: skip
def test_training_over_two_cards_ends_where_one_card_does(
    folder: Path, examples: Any, settings: TrainSettings, second_layer_apart: Any
) -> None:
    spec = new_spec(str(folder), 4, 8.0)
    whole = attach(load(str(folder), "cpu"), spec)
    alone = trained(whole, spec, examples, settings=settings)
    start = initial_adapter(spec, b"i").vector
    with Cards():
        model = attach(laid_out(folder, OVER), spec)
        second_layer_apart(model)
        found = trained(model, spec, examples, settings=settings)
    assert is_laid_out(model)
    assert not is_laid_out(whole)
    assert found.first_loss == pytest.approx(alone.first_loss, rel=1e-6)
    assert found.last_loss == pytest.approx(alone.last_loss, rel=1e-5)
    assert apart(found.vector - start, alone.vector - start) < 1e-4
    if settings.keep_moments:
        assert found.moments is not None


def test_pauses_and_shortages_cost_a_run_over_two_cards_nothing(
    folder: Path, examples: Any, second_layer_apart: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = new_spec(str(folder), 4, 8.0)
    model = attach(laid_out(folder, OVER), spec)
    second_layer_apart(model)
    small = {"most_tokens": 60, "job": b"j"}
    whole = trained(model, spec, examples, breaks=Breaks(**small))
    kept: list[TrainingCheckpoint] = []

    def pause(taken: Callable[[], TrainingCheckpoint]) -> None:
        if not kept and (now := taken()).place.micro and now.place.step == 3:
            kept.append(now)
            raise Paused

    with pytest.raises(Paused):
        trained(model, spec, examples, breaks=Breaks(between=pause, **small))
    resumed = trained(model, spec, examples, breaks=Breaks(resume=kept[0], **small))
    assert np.array_equal(resumed.vector, whole.vector)

    failures = [False, False, True]
    add = scattered.EagerGradients.add

    def failing(self: Any, piece: Any, learnt: int, factor: float) -> Any:
        loss = add(self, piece, learnt, factor)
        if failures and failures.pop(0):  # the backward pass was done: gradients are there
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    monkeypatch.setattr(scattered.EagerGradients, "add", failing)
    short = trained(model, spec, examples, breaks=Breaks(most_tokens=200))
    assert not failures
    assert short.last_loss == pytest.approx(whole.last_loss, rel=1e-5)


@pytest.mark.parametrize("layout", [OVER, BESIDE])
def test_what_is_measured_and_written_is_the_same(
    folder: Path, examples: Any, layout: Layout
) -> None:
    from nomoat.lora.data.encoding import Encoder

    spec = new_spec(str(folder), 4, 8.0)
    with Cards():
        bases = [load(str(folder), "cpu"), laid_out(folder, layout)]
        found = []
        for base in bases:
            model = attach(base, spec)
            loss = evaluate(model, None, examples, 8).loss
            encoder = Encoder.of(base.tokenizer, 64)
            found.append((loss, sample(model, None, encoder, "mail 3?", 8, False)))
            detach(model)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1] == found[1][1]
