"""Every method, and what composes with it: the same bits from any number of workers and kills."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.methods import METHODS
from nomoat.aggregation.methods.modules import same_scale
from nomoat.lora.memory.joint_plan import JointPlan
from nomoat.lora.model.adapter_folder import load_folder
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.simulations.engine import federate
from nomoat.simulations.preparation import PreparedFederation, prepared
from nomoat.simulations.report.live_table import Silence
from nomoat.simulations.run import RunResources, simulate
from nomoat.simulations.run_folder import RunFolder
from nomoat.simulations.scenario import Scenario

ALL = tuple(METHODS)

pytestmark = pytest.mark.timeout(400)


class Killed(BaseException):
    """No `except Exception` may catch it, as none catches a kill."""


class KillIn:
    """A watcher that ends the run in a phase of a round."""

    def __init__(self, round_number: int, phase: str) -> None:
        self.when = (round_number, phase)

    def progress(self, progress: RoundProgress) -> None:
        if (progress.round, progress.phase) == self.when and progress.answered:
            raise Killed

    def ended(self, record: RoundRecord) -> None:
        pass


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tiny_data: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_model),
        "data": str(tiny_data),
        "by": "topic",
        "rounds": 2,
        "local_steps": 2,
        "batch_size": 4,
        "seq_len": 48,
        "rank": 4,
        "lr": 0.02,
        "seed": 5,
    }


@pytest.fixture(scope="module")
def scenario(settings: dict[str, Any]) -> Callable[..., Scenario]:
    def make(**changes: Any) -> Scenario:
        method = METHODS[changes.get("method", "fedavg")]
        chosen = {"secure": method.traits.summable, "personal": "none"}
        if method.traits.mixed_ranks and "ranks" not in changes:
            chosen["ranks"] = "1,2,4"
        return Scenario.model_validate(settings | chosen | changes)

    return make


@pytest.fixture(scope="module")
def grounds(
    scenario: Callable[..., Scenario], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PreparedFederation, PreparedFederation]]:
    """The same federation's ground with one worker and with two."""
    with contextlib.ExitStack() as open_things:
        made = []
        for workers in (1, 2):
            shards = tmp_path_factory.mktemp("shards")
            made.append(open_things.enter_context(prepared(scenario(), workers, shards, shards)))
        yield made[0], made[1]


def play(
    scenario: Scenario, ground: PreparedFederation, out: Path
) -> tuple[RunFolder, FederationCheckpoint]:
    """Run what is left of a scenario's rounds in a folder."""
    folder = RunFolder(out)
    folder.bind(ground.initial.spec, b"the same")
    return folder, federate(scenario, ground, folder, Silence(), folder.volunteers)


def timeless(folder: RunFolder) -> list[dict[str, Any]]:
    timings = ("seconds", "train_seconds")
    return [{k: v for k, v in r.items() if k not in timings} for r in folder.records()]


@pytest.mark.parametrize("method", ["fedavg", "fedplora"])
def test_volunteers_trained_together_end_where_each_alone_does_whoever_works(
    method: str,
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    chosen = scenario(method=method, optimizer_state="keep" if method == "fedavg" else "reset")
    ends = []
    for place, ground in enumerate(grounds):
        joint = replace(ground, at_once=JointPlan(2, 200))
        ends.append(play(chosen, joint, tmp_path / f"together-{place}"))
    (folder, end), (_, another) = ends
    assert end.state.adapter.digest == another.state.adapter.digest
    alone, oracle = play(chosen, grounds[1], tmp_path / "alone")
    moved = oracle.state.adapter.vector - grounds[1].initial.vector
    error = end.state.adapter.vector - oracle.state.adapter.vector
    assert np.linalg.norm(error) <= 2e-3 * np.linalg.norm(moved)
    for one, other in zip(folder.records(), alone.records(), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["tokens"] == other["tokens"]


@pytest.mark.parametrize("method", ALL)
def test_every_method_ends_the_same_whoever_works_and_wherever_it_was_cut(
    method: str,
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    one, two = grounds
    whole, end = play(scenario(method=method), two, tmp_path / "whole")
    play(scenario(method=method, rounds=1), one, tmp_path / "cut")
    cut, again = play(scenario(method=method), one, tmp_path / "cut")
    assert again.state.adapter.digest == end.state.adapter.digest
    assert timeless(cut) == timeless(whole)
    last = whole.records()[-1]
    assert last["committed"], last["reason"]
    assert last["refused"] == last["dropped"] == {}
    trained = {1, 2, 4} if METHODS[method].traits.mixed_ranks else {4}
    assert set(last["ranks"].values()) == trained
    assert end.state.rank == 4
    assert (end.state.adapter.spec.rank > 4) == METHODS[method].traits.grows
    assert not np.array_equal(end.state.adapter.vector, one.initial.vector)
    assert abs(last["loss"] - whole.records()[0]["loss"]) > 1e-4


def dense(checkpoint: FederationCheckpoint) -> np.ndarray:
    adapter = checkpoint.state.adapter
    products = [b.astype(np.float64) @ a for _, a, b in adapter.factors()]
    return adapter.spec.scale * np.concatenate([product.ravel() for product in products])


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if m.traits.summable])
def test_masks_change_nothing_but_what_fixed_point_rounds(
    method: str,
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    """Also where a report holds more than factors: module shares, sketches of products.

    As long as no module is trained by one alone, which masks leave out (protocol §11.7).
    """
    two = grounds[1]
    once = {"method": method, "rounds": 1}
    if METHODS[method].traits.mixed_ranks:
        once["ranks"] = "1,4,4"
    _, masked = play(scenario(**once), two, tmp_path / "masked")
    _, plain = play(scenario(**once, secure=False), two, tmp_path / "plain")
    apart = np.linalg.norm(dense(masked) - dense(plain)) / np.linalg.norm(dense(plain))
    assert 0 < apart < 1e-3


COMPOSED = {
    "everything fedavg can": {
        "method": "fedavg",
        "ranks": "1,2,4",
        "server_optimizer": "fedadam",
        "lr_schedule": "cosine",
        "optimizer_state": "keep",
        "prox": 0.5,
        "personal": "adapter",
        "dropout": 0.2,
    },
    "moments of alternating factors": {
        "method": "rolora",
        "server_optimizer": "momentum",
        "optimizer_state": "keep",
        "lr_schedule": "warmup",
    },
    "a B at home": {"personal": "local-B", "ranks": None, "optimizer_state": "keep"},
}


@pytest.mark.parametrize(
    ("name", "killed"),
    [
        ("everything fedavg can", (2, "training")),
        ("moments of alternating factors", (3, "aggregating")),
        ("a B at home", (2, "evaluating")),
    ],
)
def test_a_killed_run_resumes_to_the_same_end_whatever_it_remembers(
    name: str,
    killed: tuple[int, str],
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    wanted = scenario(rounds=killed[0], **COMPOSED[name])
    whole, found = play(wanted, grounds[1], tmp_path / "whole")
    cut = RunFolder.create(tmp_path / "cut", wanted, [])
    machine = RunResources(1, tmp_path, time.monotonic())
    with pytest.raises(Killed):
        simulate(wanted, cut, machine, KillIn(*killed))
    cut, wanted = RunFolder.reopen(tmp_path / "cut")
    again = simulate(wanted, cut, machine, Silence())
    assert again.adapter.digest == found.state.adapter.digest
    assert timeless(cut) == timeless(whole)
    assert all(record["committed"] for record in whole.records())


PLAIN = {"secure": False, "ranks": None}


@pytest.fixture(scope="module")
def usual(
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path_factory: pytest.TempPathFactory,
) -> np.ndarray:
    """What plain rounds with no setting changed end with."""
    return dense(play(scenario(**PLAIN), grounds[1], tmp_path_factory.mktemp("usual") / "run")[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"server_optimizer": "momentum"},
        {"server_optimizer": "fedadam"},
        {"server_optimizer": "fedyogi"},
        {"server_lr": 0.5},
        {"lr_schedule": "cosine"},
        {"lr_schedule": "warmup"},
        {"optimizer_state": "keep"},
        {"prox": 1.0},
    ],
    ids=str,
)
def test_every_setting_has_an_effect(
    changes: dict[str, Any],
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    usual: np.ndarray,
    tmp_path: Path,
) -> None:
    _, other = play(scenario(**PLAIN, **changes), grounds[1], tmp_path / "other")
    apart = np.linalg.norm(dense(other) - usual) / np.linalg.norm(usual)
    assert 1e-3 < apart < 100


def test_a_personal_adapter_is_measured_beside_the_communitys_and_changes_nothing_of_it(
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    alone, with_own = tmp_path / "alone", tmp_path / "own"
    usual, end = play(scenario(), grounds[1], alone)
    folder, again = play(scenario(personal="adapter"), grounds[1], with_own)
    assert again.state.adapter.digest == end.state.adapter.digest
    assert not usual.volunteers.exists()
    last = folder.records()[-1]
    assert last["losses"] == usual.records()[-1]["losses"]
    assert set(last["personal"]) == set(last["losses"])
    assert all(abs(last["personal"][n] - last["losses"][n]) > 1e-5 for n in last["losses"])
    assert last["personal_loss"] == pytest.approx(np.mean(list(last["personal"].values())))
    assert len(list(folder.volunteers.iterdir())) == len(last["losses"])


def test_a_b_kept_at_home_never_reaches_the_community(
    scenario: Callable[..., Scenario],
    grounds: tuple[PreparedFederation, PreparedFederation],
    tmp_path: Path,
) -> None:
    wanted = scenario(personal="local-B", ranks=None)
    folder, end = play(wanted, grounds[1], tmp_path / "run")
    moved = 0.0
    for (_, a, b), (_, a0, _) in zip(
        end.state.adapter.factors(), grounds[1].initial.factors(), strict=True
    ):
        assert not b.any()
        moved += float(np.abs(a - a0).sum())
    assert moved > 0
    first, last = folder.records()[1:]
    assert last["loss"] == pytest.approx(folder.records()[0]["loss"], abs=1e-6)
    assert all(last["personal"][name] != last["losses"][name] for name in last["losses"])
    assert last["personal_loss"] < first["personal_loss"] < first["loss"]  # it goes on learning
    usual, _ = play(scenario(ranks=None, rounds=1), grounds[1], tmp_path / "usual")
    assert first["bytes_up"] < 0.8 * usual.records()[1]["bytes_up"]


@pytest.mark.parametrize("method", ["flora", "fedex"])
def test_an_adapter_that_grew_is_exported_whole(
    method: str,
    scenario: Callable[..., Scenario],
    tmp_path: Path,
) -> None:
    wanted = scenario(method=method)
    folder = RunFolder.create(tmp_path / "run", wanted, [])
    found = simulate(wanted, folder, RunResources(2, tmp_path, time.monotonic()), Silence())
    loaded = load_folder(folder.adapter)
    assert loaded.digest == found.adapter.digest
    assert loaded.spec == same_scale(found.adapter.spec, loaded.spec.rank)
    assert loaded.spec.rank > 4
    assert json.loads((folder.adapter / "adapter_config.json").read_text())["r"] > 4
