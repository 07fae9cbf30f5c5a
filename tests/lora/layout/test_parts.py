"""Layers are shared out so that cards are filled alike; each part's memory is what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.errors import DoesNotFit
from nomoat.lora.layout.parts import WHOLE, CardPart, Layout, parts_of
from nomoat.lora.layout.placing import place
from nomoat.lora.memory.parts import LaidOut, predict_part, together
from nomoat.lora.memory.plan import plan
from nomoat.lora.memory.prediction import TrainingShape, Weights, cuda_host, predict
from nomoat.lora.model.files import config
from nomoat.lora.model.shape import ModelShape
from tests.fake_gpu.cards import Cards

GIB = 1 << 30
SEVEN_B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "vocab_size": 32_000, "tie_word_embeddings": False,
}  # fmt: skip
MODEL = ModelShape.from_config(SEVEN_B)
LONG = TrainingShape(4, 1024, 16, weights=Weights.NF4, autocast=True)


@given(
    layers=st.integers(1, 40),
    totals=st.lists(st.integers(4, 80), min_size=1, max_size=5),
    tied=st.booleans(),
    layout=st.sampled_from([Layout(True), Layout(True, True), Layout(False, True)]),
)
def test_every_layer_and_matrix_is_somewhere_once(
    layers: int, totals: list[int], tied: bool, layout: Layout
) -> None:
    model = ModelShape.from_config(
        SEVEN_B | {"num_hidden_layers": layers, "tie_word_embeddings": tied}
    )
    parts = parts_of(model, layout, 4, [total * GIB for total in totals])
    assert sum(part.layers for part in parts) == layers
    assert all(part.layers > 0 for part in parts)
    assert len(parts) == (min(len(totals), layers) if layout.over_gpus else 1)
    assert [part.first for part in parts] == [True] + [False] * (len(parts) - 1)
    in_ram = layout.embedding_in_ram
    assert sum(part.embedding for part in parts) == (not in_ram)
    assert sum(part.head for part in parts) == (not (in_ram and tied))
    if tied:
        assert [part.embedding for part in parts] == [part.head for part in parts]


def test_a_card_of_twice_the_memory_has_about_twice_the_layers() -> None:
    small, large = parts_of(MODEL, Layout(True), 16, (12 * GIB, 24 * GIB))
    assert (small.layers, large.layers) == (9, 23)
    even = parts_of(MODEL, Layout(True), 4, (24 * GIB, 24 * GIB))
    assert abs(even[0].layers - even[1].layers) <= 6  # the last has the head, and logits


def test_one_part_that_is_all_takes_what_the_whole_takes() -> None:
    whole = CardPart(MODEL.layers, True, True, True)
    assert predict_part(MODEL, whole, LONG, cuda_host()) == predict(MODEL, LONG, cuda_host())


def test_parts_hold_together_what_one_card_would(folder: Path) -> None:
    """And on each card lie as many bytes as are predicted of it."""
    shape = ModelShape.from_config(config(folder))
    training = TrainingShape(1, 64, 4, weights=Weights.FP32)
    layout = Layout(True)
    parts = parts_of(shape, layout, None, (GIB, GIB))
    predicted = [predict_part(shape, part, training, cuda_host()) for part in parts]
    with Cards() as cards:
        model = placed(folder, parts)
        held = {1: 0, 2: 0}
        for parameter in model.parameters():
            card = cards.card(parameter)
            assert card is not None
            held[card] += parameter.numel() * parameter.element_size()
    assert [one.weights for one in predicted] == pytest.approx(list(held.values()), rel=0.01)
    assert predicted[0].trained > predicted[1].trained
    assert predicted[0].loss == 0
    whole = predict(shape, training, cuda_host())
    assert together(predicted).weights == pytest.approx(whole.weights, rel=0.01)
    assert together(predicted).activations == pytest.approx(whole.activations, rel=0.2)


def test_a_plan_fits_every_card_by_itself() -> None:
    layout = Layout(True)
    for free in (6, 4):
        cards = (free * GIB, free * GIB)
        parts = parts_of(MODEL, layout, 4, cards)
        found = plan(MODEL, LONG, 2 * free * GIB, cuda_host(), 0, LaidOut(parts, cards))
        each = [predict_part(MODEL, part, found.training, cuda_host()) for part in parts]
        assert all(one.total <= free * GIB for one in each)
        assert found.largest_bytes == max(one.total for one in each)
        assert found.batch == 4
    parts = parts_of(MODEL, layout, 4, (2 * GIB, 2 * GIB))
    laid_out = LaidOut(parts, (2 * GIB, 2 * GIB))
    with pytest.raises(DoesNotFit, match=r"needs \d\.\d of 2\.0 GiB, \d\.\d of 2\.0 GiB, at nf4"):
        plan(MODEL, LONG, 4 * GIB, cuda_host(), 0, laid_out)


def test_an_embedding_in_main_memory_leaves_its_bytes_free() -> None:
    host, bytes_of_one = cuda_host(), 2 * MODEL.vocab * MODEL.hidden
    (part,) = parts_of(MODEL, Layout(False, True), 4, (GIB,))
    beside, whole = predict_part(MODEL, part, LONG, host), predict(MODEL, LONG, host)
    assert whole.total - beside.total == bytes_of_one
    tied = ModelShape.from_config(SEVEN_B | {"tie_word_embeddings": True})
    (part,) = parts_of(tied, Layout(False, True), 4, (GIB,))
    beside = predict_part(tied, part, LONG, host)
    assert beside.loss == 0  # the head is where the matrix is
    assert beside.loading == beside.weights + bytes_of_one  # read by way of the GPU
    assert WHOLE.in_words == ""


@pytest.fixture(params=[True, False])
def folder(request: Any, tmp_path: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    tied = {"tie_word_embeddings": request.param}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, **tied)).save_pretrained(tmp_path)
    return tmp_path


def placed(folder: Path, parts: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    place(model, parts, (torch.device("cpu:1"), torch.device("cpu:2")))
    return model
