"""Events reach the log and the hooks, metrics count, and no round waits for any of them."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.desk.watching.event_log import FILES, EventLog, EventSearch, search
from nomoat.desk.watching.events import CommunityEvent, read_line
from nomoat.desk.watching.hooks import Hooks, hook_key
from nomoat.desk.watching.metrics import (
    RoundMetrics,
    StandingCollector,
    metrics_port,
    new_registry,
)
from nomoat.desk.watching.news_queue import MOST_WAITING
from nomoat.desk.watching.notices import Notices, apprise
from nomoat.desk.watching.roster_follower import RosterFollower
from nomoat.desk.watching.round_watcher import RoundEvents
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.watching import RoundProgress, Traffic
from round_records import RECORDS

COMMITTED = CommunityEvent(5.0, "round.committed", 3, "committed", {"loss": 2.5})


def test_a_phase_is_an_event_once_and_an_end_has_its_figures() -> None:
    told: list[CommunityEvent] = []
    watcher = RoundEvents([told.append], lambda: 7.0)
    for answered in range(3):
        watcher.progress(RoundProgress(1, "training", answered, 3))
    watcher.progress(RoundProgress(1, "aggregating", 3, 6))
    watcher.ended(RECORDS[1])
    assert [(event.name, event.phase) for event in told] == [
        ("round.phase", "training"),
        ("round.phase", "aggregating"),
        ("round.committed", "committed"),
    ]
    values = json.loads(told[-1].line())
    assert values["at"] == 7.0
    assert (values["round"], values["in_sum"], values["late"], values["refused"]) == (1, 2, 1, 1)
    assert '"ada"' not in told[-1].line().decode()


def test_a_line_is_read_as_it_was_written_and_nothing_else_is() -> None:
    assert read_line(COMMITTED.line().decode()) == COMMITTED
    for line in ("", "{", "[]", '{"at": "x", "event": "y"}', "null", '{"event": 3}'):
        assert read_line(line) is None


def test_the_log_turns_over_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log = EventLog(path, 500)
    for number in range(100):
        log(CommunityEvent(float(number), "round.phase", number, "training"))
    log.close()
    assert len(list(path.parent.iterdir())) == FILES + 1
    found = search(path, EventSearch(), 1000)
    assert [event.round for event in found] == list(range(99, 99 - len(found), -1))
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 500 * (FILES + 1)


def test_a_log_that_cannot_be_written_costs_no_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log = EventLog(path, 500)
    path.mkdir()
    for _ in range(3):
        log(COMMITTED)
    assert caplog.text.count("cannot be written") == 1


def test_the_roster_is_followed_whoever_writes_it(
    community: OpenCommunity, enrol: Callable[[str], None]
) -> None:
    told: list[CommunityEvent] = []
    follower = RosterFollower(community.registrar.database, [told.append])
    enrol("ada")
    from nomoat.aggregation.protocol.roster import Event

    community.registrar.order("ada", Event.RELEASE, "", 1_800_000_000)
    OpenCommunity.open(community.folder.root).registrar.order(
        "ada", Event.HOLD, "late", 1_800_000_001
    )
    follower.look()
    follower.look()
    assert [event.name for event in told] == ["volunteer.join", "volunteer.hold"]
    assert [event.fields for event in told] == [{"entry": 0}, {"entry": 1}]


class Post:
    """An address that answers with `statuses` one after the other, then with 204."""

    def __init__(self, stop: threading.Event, *statuses: int | Exception) -> None:
        self.statuses, self.stop = list(statuses), stop
        self.got: list[tuple[str, bytes, dict[str, str]]] = []

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        self.got.append((url, body, headers))
        answer = self.statuses.pop(0) if self.statuses else 204
        if not self.statuses:
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_hook_gets_news_alone_signed_and_again_if_it_failed(tmp_path: Path) -> None:
    stop = threading.Event()
    post = Post(stop, httpx.ConnectError("no"), 500, 200)
    key = hook_key(tmp_path / "hooks.key")
    assert hook_key(tmp_path / "hooks.key") == key
    hooks = Hooks(["https://example.org/x"], key, post, lambda: 99.5, (0.0, 0.0, 0.0))
    hooks(CommunityEvent(1.0, "round.phase", 1, "training"))
    hooks(COMMITTED)
    hooks.run(stop)
    assert len(post.got) == 3
    _, body, headers = post.got[-1]
    assert json.loads(body)["event"] == "round.committed"
    assert headers["nomoat-timestamp"] == "99"
    wanted = hmac.new(key, b"99." + body, hashlib.sha256).hexdigest()
    assert headers["nomoat-signature"] == f"sha256={wanted}"


def test_a_hook_that_never_answers_is_given_up_and_its_path_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = threading.Event()
    post = Post(stop, 500, 500)
    hooks = Hooks(["https://example.org/secret-path"], b"k", post, lambda: 1.0, (0.0,))
    hooks(COMMITTED)
    hooks.run(stop)
    assert "example.org" in caplog.text
    assert "secret-path" not in caplog.text


def test_notices_are_sentences_that_name_nobody_and_a_failure_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop, heard = threading.Event(), []

    def speak(title: str, body: str) -> bool:
        heard.append((title, body))
        if len(heard) == 2:
            raise RuntimeError("ntfy://secret")
        if len(heard) == 3:
            stop.set()
        return True

    notices = Notices("To\x1bwn", speak)
    notices(CommunityEvent(1.0, "round.phase", 1, "training"))
    notices(COMMITTED)
    notices(CommunityEvent(2.0, "round.abandoned", 5, "abandoned", {"reason": "too few"}))
    notices(CommunityEvent(3.0, "volunteer.hold", None, None, {"entry": 9}))
    notices.run(stop)
    assert "\x1b" not in heard[0][0]
    assert heard[0][1].startswith(f"Round {COMMITTED.round} was committed: ")
    assert heard[1][1] == "Round 5 was abandoned: too few."
    assert heard[2][1] == "A volunteer was held: entry 9 of the roster says who, and why."
    assert "secret" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_notices_without_their_library_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(UsageError, match="pip install apprise"):
        apprise(["ntfy://town"])


def test_news_nobody_fetches_is_dropped_and_never_waited_for() -> None:
    hooks = Hooks(["https://example.org"], b"k")
    for _ in range(MOST_WAITING + 5):
        hooks(COMMITTED)


def test_metrics_count_what_became_of_updates_and_name_nobody(
    community: OpenCommunity, enrol: Callable[[str], None]
) -> None:
    enrol("ada")
    registry = new_registry()
    metrics = RoundMetrics(registry)
    registry.register(StandingCollector(community, lambda: {"ada": 1}, lambda: Traffic(7, 9)))
    metrics.progress(RoundProgress(1, "training", 1, 3))
    for record in RECORDS:
        metrics.ended(record)
    text = generate_latest(registry).decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["nomoat_rounds_total", "committed"] == 1
    assert found["nomoat_rounds_total", "abandoned"] == 1
    assert found["nomoat_updates_total", "accepted"] == 2
    assert found["nomoat_updates_total", "late"] == 2
    assert found["nomoat_updates_total", "refused"] == 1
    assert found["nomoat_round_duration_seconds_sum",] == 14
    assert found["nomoat_phase_duration_seconds_sum", "training"] == 10
    assert found["nomoat_eval_loss", "volunteers"] == pytest.approx(2.8)
    assert found["nomoat_volunteers", "pending"] == 1
    assert found["nomoat_volunteers_online",] == 1
    assert found["nomoat_port_bytes_total", "down"] == 9
    assert "ada" not in text
    assert "ben" not in text


def test_the_metrics_port_answers_in_prometheus_format_and_a_taken_one_is_told() -> None:
    with metrics_port(new_registry(), "127.0.0.1", 0) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert "nomoat_build_info" in answer.text
        with (
            pytest.raises(NomoatError, match=r"watch\.metrics_port"),
            metrics_port(new_registry(), "127.0.0.1", port),
        ):
            pass
