"""A setting that cannot be is refused by its name; what is given overrides file and default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.simulations.scenario import Scenario, parse_partition, resolve


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[scenario]\nrounds = 7\nlocal-steps = 5\ntarget-modules = ["q_proj"]\n')
    found = resolve(file, {"rounds": 3, "seed": None})
    assert (found.rounds, found.local_steps, found.seed) == (3, 5, 0)
    assert found.targets == ("q_proj",)
    assert Scenario().targets == "all-linear"


def test_settings_may_stand_at_the_top_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("rounds = 7\n")
    assert resolve(file, {}).rounds == 7


def test_a_setting_goes_by_the_name_it_had_before_too(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('lr = 0.02\ntargets = "q_proj, v_proj"\n')
    found = resolve(file, {})
    assert (found.learning_rate, found.target_modules) == (0.02, ("q_proj", "v_proj"))
    assert resolve(file, {"learning_rate": 0.03}).learning_rate == 0.03


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"rounds": 0}, "rounds"),
        ({"local_steps": 0}, "local-steps"),
        ({"batch_size": 5000}, "batch-size"),
        ({"seq_len": 7}, "seq-len"),
        ({"learning_rate": 0.0}, "learning-rate"),
        ({"lr": float("nan")}, "learning-rate"),
        ({"rank": 0}, "rank"),
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.1}, "fraction"),
        ({"dropout": 1.0}, "dropout"),
        ({"eval_fraction": 1.0}, "eval-fraction"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"min_reports": 0}, "min-reports"),
        ({"volunteers": 1}, "volunteers"),
        ({"seed": -1}, "seed"),
        ({"unheard_of": 1}, "unheard-of"),
        ({"rounds": "many"}, "rounds"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_by_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: "):
        resolve(None, given)


@pytest.mark.parametrize("text", ["", "dirichlet", "dirichlet:", "dirichlet:x", "dirichlet:0"])
@pytest.mark.parametrize("more", ["", "nan"])
def test_an_unknown_partition_is_refused(text: str, more: str) -> None:
    with pytest.raises(UsageError, match=r"dirichlet:0\.3"):
        parse_partition(text + more)


def test_known_partitions_are_read() -> None:
    assert parse_partition("iid") is None
    assert parse_partition("dirichlet:0.3") == 0.3


def test_every_scenario_at_its_bounds_makes_settings_that_may_be_sent() -> None:
    for changes in (
        {"rounds": 1, "local_steps": 100_000, "batch_size": 4096, "seq_len": 131_072},
        {"lr": 10.0, "local_epochs": 100},
        {"lr": 1e-9, "seq_len": 8, "batch_size": 1},
    ):
        settings = Scenario.model_validate(changes).chosen.train_settings()
        assert isinstance(settings, TrainSettings)
        wire.encode(settings)


def test_seeds_are_apart_by_purpose_and_by_scenario() -> None:
    found = {Scenario(seed=s).seed_of(label) for s in (0, 1) for label in ("federation", "adapter")}
    assert len(found) == 4
    assert {len(seed) for seed in found} == {32}
