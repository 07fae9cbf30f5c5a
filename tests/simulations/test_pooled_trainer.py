"""Whatever is asked of a volunteer's hands, the next honest task gets honest work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods.modules import select
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
from nomoat.simulations.pooled_trainer import evaluate_job, train_job
from nomoat.simulations.population import SimulatedVolunteer

SETTINGS = TrainSettings(local_steps=2, batch_size=4, seq_len=48)
SEED = b"s" * 32


@pytest.fixture(scope="module")
def pool(tiny_model: Path) -> Iterator[Pool]:
    with Pool(str(tiny_model), 1, "cpu") as made:
        yield made


@pytest.fixture(scope="module")
def member(tiny_data: Path) -> SimulatedVolunteer:
    return SimulatedVolunteer("ada", tiny_data, tiny_data, 60, 60)


def bent(spec: AdapterSpec) -> dict[str, AdapterSpec]:
    """Adapters of other models, and targets that PEFT cannot or must not take."""
    first = spec.layers[0]
    wider = LayerSpec(first.name, first.d_out + 1, first.d_in, spec.rank)
    targets = {
        name: replace(spec, target_modules=modules)
        for name, modules in {
            "nothing": ("nothing",),
            "the embedding": ("embed_tokens",),
            "a layer and then a norm": ("q_proj", "input_layernorm"),
            "the head": ("q_proj", "lm_head"),
            "a pattern": ("(a+)+$",),
        }.items()
    }
    return {
        "a layer missing": replace(spec, layers=spec.layers[1:]),
        "a layer too many": replace(spec, layers=(*spec.layers, LayerSpec("zzz", 4, 4, spec.rank))),
        "another shape": replace(spec, layers=(wider, *spec.layers[1:])),
        **targets,
    }


def test_a_hostile_adapter_is_refused_and_leaves_no_trace_in_the_model(
    pool: Pool, member: SimulatedVolunteer
) -> None:
    spec = pool.submit(SpecJob(4, 8.0)).result().spec
    start = initial_adapter(spec, b"seed")
    honest = train_job(member, start, SETTINGS, SEED)
    before = pool.submit(honest).result().vector.tobytes()
    for name, other in bent(spec).items():
        zeros = Adapter(other, np.zeros(other.size, np.float32))
        for job in (
            train_job(member, zeros, SETTINGS, SEED),
            evaluate_job(member, zeros, SETTINGS),
        ):
            with pytest.raises(NomoatError, match="another model"):
                pool.submit(job).result()
        assert pool.submit(honest).result().vector.tobytes() == before, name


def test_the_same_task_gives_the_same_update_and_another_seed_another(
    pool: Pool, member: SimulatedVolunteer
) -> None:
    """Trap 7: the order of rows comes from the seed, and nothing else does."""
    spec = pool.submit(SpecJob(4, 8.0)).result().spec
    start = initial_adapter(spec, b"seed")
    jobs = [train_job(member, start, SETTINGS, seed) for seed in (SEED, SEED, b"t" * 32)]
    first, again, other = (pool.submit(job).result().vector for job in jobs)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_frozen_modules_are_in_the_model_a_worker_trains(
    pool: Pool, member: SimulatedVolunteer
) -> None:
    """The first loss is that of the whole adapter, whatever part of it is trained."""
    spec = pool.submit(SpecJob(4, 8.0)).result().spec
    rng = np.random.default_rng(1)
    whole = Adapter(spec, (rng.standard_normal(spec.size) * 0.2).astype(np.float32))
    entire = pool.submit(train_job(member, whole, SETTINGS, SEED)).result()
    for trained, frozen in (((0,), (1, 2, 3)), ((3, 1), (0, 2))):
        job = train_job(member, select(whole, trained), SETTINGS, SEED)
        alone = pool.submit(job).result()
        beside = pool.submit(replace(job, frozen=select(whole, frozen))).result()
        assert beside.first_loss == pytest.approx(entire.first_loss, abs=1e-5)
        assert abs(alone.first_loss - entire.first_loss) > 1e-3
        assert beside.vector.size == alone.vector.size == select(whole, trained).spec.size
    again = pool.submit(train_job(member, whole, SETTINGS, SEED)).result()
    assert again.vector.tobytes() == entire.vector.tobytes()  # nothing of the frozen part stays
