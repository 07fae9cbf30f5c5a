"""Named tensors ↔ one flat vector: nothing is broadcast, lost, renamed or reordered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import (
    LORA_A,
    LORA_B,
    Adapter,
    AdapterSpec,
    LayerSpec,
    Manifest,
    TensorSpec,
    as_bytes,
    as_vector,
)
from nomoat.aggregation.protocol.messages import AdapterShape


def spec(rank=3, alpha=6.0, **options):
    layers = (LayerSpec("model.a", 4, 5, rank), LayerSpec("model.b", 6, 2, rank))
    return AdapterSpec(layers, rank, alpha, **options)


def adapter(**options):
    made = spec(**options)
    return Adapter(made, np.arange(made.size, dtype=np.float32))


def tensors():
    return {n: v.copy() for n, v in spec().manifest.views(adapter().vector).items()}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_join_undoes_views_for_any_shapes(shapes):
    manifest = Manifest(tuple(TensorSpec(f"t{i}", shape) for i, shape in enumerate(shapes)))
    vector = np.random.default_rng(0).normal(size=manifest.size).astype(np.float32)
    views = manifest.views(vector)
    assert [v.shape for v in views.values()] == shapes
    assert np.array_equal(manifest.join(dict(reversed(views.items()))), vector)


def test_views_share_memory_and_join_does_not():
    vector = adapter().vector
    views = spec().manifest.views(vector)
    views["model.a.lora_A.weight"][0, 0] = -1
    assert vector[0] == -1
    joined = spec().manifest.join(views)
    joined[0] = 7
    assert vector[0] == -1


def test_factors_come_as_a_then_b_in_pefts_shapes():
    found = [(layer.name, a.shape, b.shape) for layer, a, b in adapter().factors()]
    assert found == [("model.a", (3, 5), (4, 3)), ("model.b", (3, 2), (6, 3))]
    assert [t.name for t in spec().manifest.tensors][:2] == [
        "model.a.lora_A.weight",
        "model.a.lora_B.weight",
    ]


def test_only_one_factor_keeps_the_order():
    manifest = spec().manifest
    assert [t.name for t in manifest.only(LORA_B).tensors] == [
        "model.a.lora_B.weight",
        "model.b.lora_B.weight",
    ]
    assert manifest.only(LORA_A).size + manifest.only(LORA_B).size == manifest.size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.b.lora_A.weight"), "model.b.lora_A.weight is missing"),
        (lambda t: t.update(odd=np.zeros(2, np.float32)), "odd is unknown"),
        (lambda t: t.update({"model.a.lora_A.weight": np.zeros((1, 5), "f4")}), "has shape"),
        (lambda t: t.update({"model.a.lora_A.weight": np.zeros((3, 1), "f4")}), "has shape"),
        (lambda t: t.update({"model.a.lora_A.weight": np.zeros(15, "f4")}), "has shape"),
        (lambda t: t.update({"model.a.lora_A.weight": np.zeros((5, 3), "f4")}), "has shape"),
    ],
)
def test_other_names_and_broadcastable_shapes_are_refused(change, said):
    changed = tensors()
    change(changed)
    with pytest.raises(LocalProtocolError, match=said):
        spec().manifest.join(changed)


@pytest.mark.parametrize("size", [0, 1, 41, 57])
def test_views_refuse_vectors_of_other_lengths(size):
    with pytest.raises(LocalProtocolError, match="shape"):
        spec().manifest.views(np.zeros(size, np.float32))


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", ">f4", "c8"])
def test_an_adapter_is_float32_and_nothing_else(dtype):
    with pytest.raises(LocalProtocolError, match="float32"):
        Adapter(spec(), np.zeros(spec().size, dtype))


@pytest.mark.parametrize(
    ("rank", "rslora", "scale"), [(8, False, 2.0), (8, True, 16 / 8**0.5), (16, False, 1.0)]
)
def test_scale_is_pefts(rank, rslora, scale):
    """Trap 4: r = 8, α = 16 scales by 2.0, and by 5.657 with rsLoRA."""
    made = spec(rank, 16.0, rslora=rslora)
    assert made.scale == pytest.approx(scale)


def test_scale_agrees_with_peft_itself():
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    for rslora in (False, True):
        model = torch.nn.Sequential(torch.nn.Linear(5, 4))
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["0"], use_rslora=rslora)
        layer = peft.get_peft_model(model, config).base_model.model[0]
        assert spec(8, 16.0, rslora=rslora).scale == pytest.approx(layer.scaling["default"])


def test_layers_out_of_order_or_twice_are_refused():
    one, two = LayerSpec("a", 2, 2, 1), LayerSpec("b", 2, 2, 1)
    for layers in ((two, one), (one, one)):
        with pytest.raises(LocalProtocolError, match="sorted"):
            AdapterSpec(layers, 1, 1.0)
    with pytest.raises(LocalProtocolError, match="rank 2"):
        AdapterSpec((one, two), 2, 1.0)


def test_digest_tells_every_difference_that_matters():
    base = adapter()
    nudged = base.vector.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(1))
    renamed = AdapterSpec((LayerSpec("model.a", 4, 5, 3), LayerSpec("model.c", 6, 2, 3)), 3, 6.0)
    others = [
        Adapter(spec(), nudged),
        Adapter(renamed, base.vector),
        adapter(alpha=6.5),
        adapter(rslora=True),
    ]
    digests = {base.digest, *(other.digest for other in others)}
    assert len(digests) == 5


@pytest.mark.parametrize("alpha", [6, np.float32(6), np.float64(6)])
def test_digest_is_the_same_before_and_after_the_wire(alpha):
    """α = 16 as an int on one side and 16.0 on the other was once two adapters."""
    sent = adapter(alpha=alpha)
    received = AdapterShape.of(sent.spec).spec()
    assert Adapter(received, as_vector(as_bytes(sent.vector))).digest == sent.digest


@given(st.binary(max_size=64))
@settings(max_examples=50, deadline=None)
def test_bytes_become_a_vector_or_a_refusal(data):
    if len(data) % 4:
        with pytest.raises(LocalProtocolError):
            as_vector(data)
    else:
        vector = as_vector(data)
        assert vector.dtype == np.float32
        assert vector.flags.writeable
        assert as_bytes(vector) == data


def test_averaging_adapters_in_peft_is_not_the_mean_of_products():
    """Trap 3: add_weighted_adapter("linear") averages √p-scaled factors, not BA."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 10, bias=False))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config, adapter_name="one")
    wrapped.add_adapter("two", config)
    wrapped.add_weighted_adapter(["one", "two"], [0.5, 0.5], "mean", combination_type="linear")
    layer = wrapped.base_model.model[0]
    mean = (layer.get_delta_weight("one") + layer.get_delta_weight("two")) / 2
    error = (layer.get_delta_weight("mean") - mean).norm() / mean.norm()
    assert error > 0.3
