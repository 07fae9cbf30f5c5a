"""The page and the sentence say what was found, also when little was, and nothing in them runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.lora.data.conversations import ChatTurn, Conversation, Dropped
from nomoat.lora.export.order import ExportTarget
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.baselines import Baselines
from nomoat.simulations.population import Population, SimulatedVolunteer
from nomoat.simulations.report import page, plots
from nomoat.simulations.report.results import Result, Sample
from nomoat.simulations.report.samples import _cut
from nomoat.simulations.scenario import Scenario

NASTY = "</svg></pre><script>x</script><img src=x onerror=y> \"'&"
SPEC = AdapterSpec((LayerSpec("model.a", 3, 2, 1),), 1, 1.0, target_modules=("a",))


def record(number: int, losses: dict[str, float], **changes: Any) -> dict[str, Any]:
    loss = float(np.mean(list(losses.values()))) if losses else None
    names = tuple(sorted(losses))
    made = RoundRecord(number, True, "fine", names, names if number else (), loss=loss)
    return replace(made, losses=losses, seconds={"training": 1.5}, **changes).as_json()


@pytest.fixture
def result() -> Callable[..., Result]:
    """A result of two volunteers and two rounds, changed as a test wants."""

    def make(**changes: Any) -> Result:
        path = Path("x")
        members = tuple(SimulatedVolunteer(name, path, path, 9, 3) for name in ("ada", "bob"))
        population = Population(members, (Dropped("is empty", 2, "x:1"),), 0, path, ())
        rounds = [
            record(n, {"ada": 4.0 - n, "bob": 5.0 - n}, bytes_up=100 * n, bytes_down=300)
            for n in range(3)
        ]
        adapter = Adapter(SPEC, np.zeros(SPEC.size, np.float32))
        made = Result(Scenario(), population, adapter, rounds, None, (), 30.0, 20.0)
        return replace(made, **changes)

    return make


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_nothing_in_a_row_a_name_or_a_setting_becomes_markup(
    result: Callable[..., Result],
) -> None:
    sample = Sample(NASTY, NASTY, NASTY, NASTY, NASTY)
    names = {f"a {NASTY}": 4.0, "$x^{$": 5.0, "名前" * 60: 3.0}
    rounds = [
        record(0, names),
        record(1, names, dropped={NASTY: NASTY}, refused={NASTY: NASTY}, reason=NASTY),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = page.page(result(samples=(sample,), records=rounds), f"by = '{NASTY}'")
    found = Tags(text)
    assert not {"script", "img", "iframe", "object", "embed", "link"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    for name, value in found.attributes:
        if name in {"src", "href", "xlink:href"}:
            assert value is not None
            assert value.startswith("#")
    assert found.tags.count("svg") == 2


def test_the_same_result_gives_the_same_page(result: Callable[..., Result]) -> None:
    assert page.page(result(), "") == page.page(result(), "")


def test_the_page_names_the_commands_that_use_the_adapter(result: Callable[..., Result]) -> None:
    text = page.page(result(), "")
    assert "nomoat chat --adapter FOLDER" in text
    assert "nomoat serve --adapter FOLDER" in text
    targets = text.partition("nomoat adapter export OUT --adapter FOLDER --to ")[2]
    assert set(targets.partition("<")[0].split("|")) == set(ExportTarget)


def test_a_run_that_nobody_could_measure_still_has_its_page(
    result: Callable[..., Result], tmp_path: Path
) -> None:
    found = result(records=[record(0, {}), record(1, {}, committed=False, reason="0 of 2 ready")])
    assert "Nobody could measure" in found.sentence()
    assert found.summary()["base"]["loss"] is None
    assert found.summary()["bytes_up_per_volunteer_per_round"] == 0
    text = page.page(found, "")
    assert "0 of 2 ready" in text
    plots.save_png(plots.loss_curve(found), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_sentence_tells_the_truth_both_ways(result: Callable[..., Result]) -> None:
    better = result()
    assert "Together: 2.50 (base model: 4.50" in better.sentence()
    assert "adapter improved on" in better.sentence()
    worse = result(records=[record(0, {"ada": 1.0}), record(1, {"ada": 2.0})])
    assert "did not improve on" in worse.sentence()
    for solo, verb in ((3.0, "together beat"), (2.0, "together did not beat")):
        compared = result(baselines=Baselines({"ada": solo}, {}, 2.2, {}))
        assert compared.sentence().startswith(f"Alone: {solo:.2f}. Together: 2.50")
        assert verb in compared.sentence()
        assert "all data in one place: 2.20" in compared.sentence()


def test_the_summary_counts_bytes_per_report_and_time_per_work(
    result: Callable[..., Result],
) -> None:
    summary = result().summary()
    assert summary["bytes_up_per_volunteer_per_round"] == round((100 + 200) / 4)
    assert summary["overhead_ratio"] == 1.5
    assert summary["rounds"] == 2
    assert summary["rounds_committed"] == 2
    assert summary["rows_dropped"] == [{"reason": "is empty", "count": 2, "first": "x:1"}]


def test_the_card_has_the_measured_figures(result: Callable[..., Result]) -> None:
    text = page.card(result(baselines=Baselines({"ada": 3.25}, {}, 2.125, {})))
    for figure in ("4.500", "**2.500**", "3.250", "2.125"):
        assert figure in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_bytes_are_readable(count: int, text: str) -> None:
    assert page.human_bytes(count) == text


def test_a_sample_asks_what_was_asked_and_continues_what_is_plain() -> None:
    chat = Conversation((ChatTurn("user", "q"), ChatTurn("assistant", "a")), {}, "x:1")
    assert _cut(chat) == ("q", "a", False)
    plain = Conversation((ChatTurn("text", "one two three four"),), {}, "x:2")
    assert _cut(plain) == ("one two", "three four", True)
    single = Conversation((ChatTurn("text", "one"),), {}, "x:3")
    assert _cut(single) == ("one", "", True)


def test_what_each_volunteer_keeps_is_shown_beside_the_community(
    result: Callable[..., Result],
) -> None:
    usual = result()
    assert "with its own part" not in page.page(usual, "")
    assert "personal" not in usual.summary()
    own = {"ada": 1.25, "bob": 2.5}
    last = {**usual.records[-1], "personal": own, "personal_loss": 1.875, "ranks": {"ada": 4}}
    found = result(scenario=Scenario(personal="adapter"), records=[*usual.records[:-1], last])
    html = page.page(found, "")
    for text in ("with its own part", "1.250", "2.500", "1.875", "never leaves"):
        assert text in html
    assert found.summary()["personal"] == {"kind": "adapter", "loss": 1.875, "losses": own}
    assert "its own part: 1.88" in found.sentence()
    assert "| community with each volunteer's own part | 1.875 |" in page.card(found)


def test_whoever_keeps_nothing_yet_counts_with_the_communitys_adapter(
    result: Callable[..., Result],
) -> None:
    usual = result()
    last = {**usual.records[-1], "personal": {"ada": 1.0}}
    found = result(scenario=Scenario(personal="adapter"), records=[*usual.records[:-1], last])
    assert found.personal_loss == (1.0 + last["losses"]["bob"]) / 2
    assert found.summary()["personal"]["losses"] == {"ada": 1.0}


def test_an_abandoned_last_round_does_not_hide_what_was_measured(
    result: Callable[..., Result],
) -> None:
    usual = result()
    own = {"ada": 1.25, "bob": 2.5}
    measured = {**usual.records[1], "personal": own}
    found = result(
        scenario=Scenario(personal="local-B"),
        records=[usual.records[0], measured, usual.records[2]],
    )
    assert found.summary()["personal"]["losses"] == own
    assert "1.250" in page.page(found, "")
