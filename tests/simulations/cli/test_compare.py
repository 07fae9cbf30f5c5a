"""Runs are put together by everything but their seed, and folders that hold none are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import UsageError
from nomoat.cli import app
from nomoat.simulations.report import comparison, seed_statistics
from nomoat.simulations.run_folder import config_text
from nomoat.simulations.scenario import Scenario

NASTY = "</svg><script>x</script><img src=x onerror=y> \"'&$"


def lay_down(
    path: Path, losses: Sequence[float | None], pooled: float | None = None, **settings: Any
) -> Path:
    """A finished run's folder with these losses by round."""
    path.mkdir(parents=True)
    scenario = Scenario(rounds=len(losses) - 1, **settings)
    (path / "config.toml").write_text(config_text(scenario, []), "utf-8")
    records = [
        {"round": n, "loss": loss, "seconds": {"aggregating": 0.5 * n} if n else {}}
        for n, loss in enumerate(losses)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    summary: dict[str, Any] = {
        "bytes_up_per_volunteer_per_round": 1024,
        "bytes_down_per_volunteer_per_round": 4096,
    }
    if pooled is not None:
        summary["pooled"] = {"loss": pooled}
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def lines(*paths: Path) -> list[comparison.Line]:
    return comparison.compare([comparison.read(path) for path in paths])


def test_runs_that_differ_only_in_the_seed_become_one_line(tmp_path: Path) -> None:
    a = lay_down(tmp_path / "a", [4.0, 3.5, 3.0], pooled=3.0, seed=1, baselines=True)
    b = lay_down(tmp_path / "b", [4.0, 3.02, 3.4], seed=0)
    [line] = lines(a, b)
    assert (line.method, line.settings, line.seeds) == ("fedavg", {}, [0, 1])
    assert line.loss == pytest.approx(3.2)
    assert line.spread == pytest.approx(0.08**0.5)
    assert line.fall == pytest.approx(0.8)
    assert line.fall_spread == pytest.approx(0.08**0.5)
    assert line.rounds_to_95 == 2.0  # of the one seed with a pooled baseline
    assert (line.bytes_up, line.bytes_down) == (1024, 4096)
    assert line.server_s == pytest.approx(0.75)
    assert line.curves == [[4.0, 3.02, 3.4], [4.0, 3.5, 3.0]]


def test_the_spread_of_the_fall_does_not_count_that_seeds_hold_out_other_rows(
    tmp_path: Path,
) -> None:
    a = lay_down(tmp_path / "a", [4.0, 3.5], seed=0)
    b = lay_down(tmp_path / "b", [3.0, 2.5], seed=1)
    [line] = lines(a, b)
    assert line.spread == pytest.approx(0.5**0.5)
    assert (line.fall, line.fall_spread) == (0.5, 0.0)


def test_other_settings_are_other_lines_the_best_first(tmp_path: Path) -> None:
    paths = [
        lay_down(tmp_path / "a", [4.0, 3.5], method="rolora", lr=0.01),
        lay_down(tmp_path / "b", [4.0, 3.1], method="fedavg", lr=0.005, ranks="4,8"),
        lay_down(tmp_path / "c", [4.0, None], method="fedavg", lr=0.005, dropout=0.5),
    ]
    best, second, last = lines(*paths)
    assert best.name == "fedavg learning_rate=0.005 ranks=4,8 dropout=0.0"
    assert second.name == "rolora learning_rate=0.01 ranks=– dropout=0.0"
    assert (last.loss, last.spread, last.fall) == (None, None, None)
    assert comparison.page([last])


@pytest.mark.parametrize(
    ("losses", "pooled", "rounds"),
    [
        ([4.0, 3.5, 3.05, 2.9], 3.0, 2),
        ([4.0, 3.5, 3.06], 3.0, None),
        ([4.0, None, 3.0], 3.0, 2),
        ([4.0, 3.0], 4.1, None),  # pooled training gained nothing
        ([4.0, 3.0], None, None),
        ([None, 3.0], 3.0, None),
        ([4.0, 4.0, 3.0], 4.0, None),
    ],
)
def test_rounds_to_95_percent_of_the_pooled_gain(
    losses: list[float | None], pooled: float | None, rounds: int | None
) -> None:
    assert seed_statistics.rounds_to(losses, pooled, 0.95) == rounds


def test_a_gain_that_one_seed_did_not_reach_has_no_mean(tmp_path: Path) -> None:
    a = lay_down(tmp_path / "a", [4.0, 3.0], pooled=3.0, seed=0)
    b = lay_down(tmp_path / "b", [4.0, 3.9], pooled=3.0, seed=1)
    [line] = lines(a, b)
    assert line.rounds_to_95 is None


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    a, b = (lay_down(tmp_path / name, [4.0, 3.0], seed=3) for name in "ab")
    with pytest.raises(UsageError, match="are the same run \\(seed 3\\)"):
        lines(a, b)


def unfinished(path: Path) -> None:
    (path / "summary.json").unlink()


def torn(path: Path) -> None:
    (path / "summary.json").write_text("{")


def short_of_a_round(path: Path) -> None:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join(lines[:-1]))


def empty_metrics(path: Path) -> None:
    (path / "metrics.jsonl").write_text("")


def other_json(path: Path) -> None:
    (path / "summary.json").write_text('{"base": 3}')


def no_config(path: Path) -> None:
    (path / "config.toml").unlink()


def bad_config(path: Path) -> None:
    (path / "config.toml").write_text("[scenario]\nrounds = 'many'\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (unfinished, "is not finished (2 of 2 rounds): go on with nomoat simulate --resume --out"),
        (torn, "is damaged"),
        (short_of_a_round, "is damaged"),
        (empty_metrics, "is damaged"),
        (other_json, "is damaged"),
        (no_config, "holds no run: config.toml is missing"),
        (bad_config, "is not what a run wrote"),
    ],
)
def test_a_folder_without_a_finished_run_is_named_in_one_line_and_left_out(
    damage: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_down(Path("good"), [4.0, 3.5, 3.0])
    damage(lay_down(Path("bad"), [4.0, 3.5, 3.0], seed=1))
    done = CliRunner().invoke(app, ["compare", "good", "bad", "--json"])
    assert done.exit_code == 0
    [line] = json.loads(done.stdout)["lines"]
    assert line["seeds"] == [0]
    [complaint, page] = done.stderr.splitlines()
    assert complaint.startswith("left out: bad")
    assert said in complaint
    assert page.split() == ["page", "comparison.html"]


def test_nothing_to_compare_is_an_error_and_writes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", "nowhere"])
    assert isinstance(done.exception, UsageError)
    assert "nothing to compare" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_comparison_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_down(Path("a"), [4.0, 3.0])
    mine = tmp_path / "index.html"
    mine.write_text("<p>mine</p>")
    done = CliRunner().invoke(app, ["compare", "a", "--out", str(mine)])
    assert isinstance(done.exception, UsageError)
    assert mine.read_text() == "<p>mine</p>"
    for _ in range(2):
        assert CliRunner().invoke(app, ["compare", "a"]).exit_code == 0


def test_the_table_has_a_row_per_line_and_no_empty_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for seed in (0, 1):
        lay_down(Path(f"a{seed}"), [4.0, 3.0 + seed], seed=seed)
    lay_down(Path("b"), [4.0, 3.25], method="rolora")
    shown = CliRunner().invoke(app, ["compare", "a0", "a1", "b"]).stdout
    assert "3.500 ± 0.707" in shown
    assert "rolora" in shown
    assert "pooled" not in shown


def test_in_eighty_columns_nothing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    lay_down(Path("a"), [4.0, 3.0], method="fedplora", ranks="4,8,16", rank=16)
    lay_down(Path("b"), [4.0, 3.25], method="rolora")
    shown = CliRunner().invoke(app, ["compare", "a", "b"]).stdout
    assert "…" not in shown
    assert "1: rank 16, ranks 4,8,16" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "onerror"}]


def test_the_page_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    paths = [
        lay_down(tmp_path / "a", [4.0, 3.5, 3.0], data=NASTY),
        lay_down(tmp_path / "b", [4.0, 3.4], method="rolora"),
    ]
    page = comparison.page(lines(*paths))
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe"} & set(tags.tags)
    assert not tags.links
    assert tags.tags.count("svg") == 1
    assert "rolora" in page
