"""benchmarks/methods.py runs every cell once, goes on where it stopped, and adds up right."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from commands_here import script

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.timeout(500)  # some 20 s of work, on a machine that does nothing else


def run(out: Path, *arguments: str) -> CompletedProcess[str]:
    return script(BENCHMARKS / "methods.py", "--out", str(out), *arguments)


ASKED = ("--quick", "--cells", "topics", "--methods", "rolora,fedex", "--seeds", "0")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("methods") / "results.jsonl"
    done = run(path, *ASKED, "--json")
    assert done.returncode == 0, done.stderr
    assert {line["method"] for line in json.loads(done.stdout)["cells"]} == {"rolora", "fedex"}
    return path


def rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["cell"]["ranks"], row["cell"]["method"]): row for row in found}


def test_every_cell_is_measured_or_said_to_be_impossible(out: Path) -> None:
    found = rows(out)
    assert len(found) == 6
    assert "cannot do mixed ranks" in found["mixed", "fedex"]["impossible"]
    measured = found["equal", "rolora"]
    assert len(measured["losses"]) == 3  # of the base model, and after each of two rounds
    assert measured["bytes_up"] > 1000
    equal, mixed = found["equal", "pooled"], found["mixed", "pooled"]
    assert equal["tokens"]["many_steps"] > equal["tokens"]["one_volunteer"]
    assert equal["equal_tokens"] == min(equal["many_steps"], equal["large_batches"])
    assert mixed["equal_tokens"] != equal["equal_tokens"]  # another rank


def test_it_goes_on_with_the_cells_that_are_missing(out: Path, tmp_path: Path) -> None:
    whole = out.read_text().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    missing = next(i for i, line in enumerate(whole) if '"method": "rolora"' in line)
    torn.write_text("".join(whole[:missing] + whole[missing + 1 :]))
    with torn.open("a") as file:
        file.write(whole[0][:50])
    kept = torn.read_text().splitlines()[:-1]
    done = run(torn, *ASKED)
    assert done.returncode == 0, done.stderr
    assert torn.read_text().splitlines()[: len(kept)] == kept
    again, before = rows(torn), rows(out)
    assert again.keys() == before.keys()
    assert len(torn.read_text().splitlines()) == len(whole)  # nothing was run twice
    for cell in (("equal", "rolora"), ("mixed", "rolora")):
        assert again[cell]["losses"] == before[cell]["losses"]
    assert "| rolora |" in done.stdout
    assert "| fedex | cannot |" in done.stdout


def test_other_settings_do_not_mix_with_a_file_of_results(out: Path) -> None:
    before = out.read_bytes()
    done = run(out, *ASKED, "--rounds", "3")
    assert done.returncode != 0
    assert "holds results with rounds 2, not 3" in done.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "fedavgg"), "no method 'fedavgg'"),
        (("--cells", "topic"), "no cell 'topic'"),
        (("--seeds", "one"), "give numbers such as 0,1,2"),
        (("--data", "x.jsonl"), "--data and --by go together"),
        (("--table",), "holds no results"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run(tmp_path / "none.jsonl", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_means_spreads_and_rounds_are_those_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cells.plan import Cell
    from cells.results import lines, markdown

    def row(losses: list[float]) -> dict[str, Any]:
        return {
            "losses": losses,
            "committed": 2,
            "bytes_up": 1024.0,
            "bytes_down": 2048.0,
            "aggregate_s": 0.5,
        }

    pooled = {"equal_tokens": 3.0, "one_volunteer": 3.9, "many_steps": 3.0, "large_batches": 3.1}
    found = {
        Cell(0, "topics", "equal", "a"): row([4.0, 3.5, 3.0]),
        Cell(1, "topics", "equal", "a"): row([4.0, 3.04, 3.2]),
        Cell(0, "topics", "equal", "b"): row([4.0, 3.5, 2.9]),
        Cell(0, "topics", "equal", "c"): {"impossible": "c cannot"},
        Cell(0, "topics", "equal", "pooled"): pooled,
        Cell(1, "topics", "equal", "pooled"): pooled,
    }
    best, second, last = lines(found)
    assert [best.method, second.method, last.method] == ["b", "a", "c"]
    assert second.loss == pytest.approx(3.1)
    assert second.spread == pytest.approx(0.02**0.5)
    assert second.to_pooled == pytest.approx((0 + 0.2 / 3) / 2)
    assert second.gain_share == pytest.approx(0.9)
    assert second.rounds_to_95 == 1.5
    assert second.rounds_to_95_of_one_volunteers_steps == 1.0
    assert last.impossible == "c cannot"
    assert (
        "| a | 3.100 ± 0.141 | 0.900 ± 0.141 | +3.3 % | 90 % | 1.5 | 1.0 KiB | 2.0 KiB | 0.500 |"
        in markdown(found)
    )
