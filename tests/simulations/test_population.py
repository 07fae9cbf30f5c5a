"""The same scenario gives the same volunteers with the same files; what is left out is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.data.reading import read
from nomoat.simulations.population import MIN_ROWS, Population, gather, read_data
from nomoat.simulations.scenario import Scenario


def data_file(folder: Path, sizes: dict[str, int]) -> Path:
    rows = [
        {"prompt": f"{who} {i}?", "completion": f"{who} {i}.", "who": who}
        for who, size in sizes.items()
        for i in range(size)
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def gathered(folder: Path, data: Path, **settings: Any) -> Population:
    folder.mkdir()
    scenario = Scenario(data=str(data), **settings)
    return gather(scenario, read_data(scenario, folder / "cache"), folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "settings",
    [
        {"by": "who"},
        {"volunteers": 3},
        {"volunteers": 3, "partition": "dirichlet:0.5", "label": "who"},
    ],
)
def test_the_same_scenario_gives_the_same_files_and_another_seed_others(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = data_file(tmp_path, {"ada": 20, "bob": 30, "cy": 25})
    first = gathered(tmp_path / "a", data, **settings)
    again = gathered(tmp_path / "b", data, **settings)
    gathered(tmp_path / "c", data, **settings, seed=1)
    assert [m.name for m in first.members] == [m.name for m in again.members]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_no_held_out_row_is_in_anyones_training_or_in_the_pooled_one(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 20, "bob": 30})
    found = gathered(tmp_path / "a", data, by="who", eval_rows=3)
    train = {row for m in found.members for row in read(m.train).conversations}
    held_out = {row for m in found.members for row in read(m.held_out).conversations}
    pooled = set(read(found.everyone).conversations)
    assert not train & held_out
    assert pooled == train
    assert [m.train_rows for m in found.members] == [16, 24]
    assert [m.held_out_rows for m in found.members] == [3, 3]


def test_volunteers_with_too_few_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": MIN_ROWS, "bob": MIN_ROWS, "cy": MIN_ROWS - 1})
    found = gathered(tmp_path / "a", data, by="who")
    assert [member.name for member in found.members] == ["ada", "bob"]
    assert found.too_small == 1


def test_fewer_than_two_volunteers_are_no_federation(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 50, "bob": 2})
    with pytest.raises(BadData, match="needs two with 5 rows or more"):
        gathered(tmp_path / "a", data, by="who")


def test_more_volunteers_than_rows_are_refused(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 5})
    with pytest.raises(UsageError, match="only 5 rows"):
        gathered(tmp_path / "a", data, volunteers=6)


def test_with_a_field_the_number_of_volunteers_takes_the_largest(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 9, "bob": 30, "cy": 20})
    found = gathered(tmp_path / "a", data, by="who", volunteers=2)
    assert [member.name for member in found.members] == ["bob", "cy"]


def test_rows_that_teach_nothing_are_counted_with_their_place(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 9, "bob": 9})
    with data.open("a") as file:
        file.write(json.dumps({"prompt": "?", "completion": "", "who": "ada"}) + "\n")
    found = gathered(tmp_path / "a", data, by="who")
    (dropped,) = found.dropped
    assert (dropped.count, dropped.first) == (1, f"{data}:19")


def test_rows_of_the_coordinators_own_are_nobody_elses_and_counted(tmp_path: Path) -> None:
    data = data_file(tmp_path, {"ada": 20, "bob": 30})
    found = gathered(tmp_path / "a", data, by="who", public_rows=6)
    assert found.public is not None
    own = set(found.public.read_text().splitlines())
    others = set(found.everyone.read_text().splitlines())
    assert len(own) == 6
    assert not own & others
    assert found.trained + found.held_out == 44
    assert sum(dropped.count for dropped in found.set_aside) == 6
