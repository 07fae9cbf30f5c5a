"""Several communities in one process: what happens in one does not reach the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import Refused
from nomoat.client.connection.threads import beneath
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.training.shared_workers import SharedWorkers
from nomoat.client.volunteer import runner
from nomoat.client.volunteer.runner import keep_logs, take_part

HOME = Home(Path("home"))


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a volunteer does, by the name of its folder; the real one is tested with processes."""
    done: dict[str, Any] = {}

    class Kit:
        @staticmethod
        def of(_home: Home, folder: CommunityFolder, _settings: object) -> CommunityFolder:
            return folder

    def volunteer(
        folder: CommunityFolder, stop: threading.Event, workers: SharedWorkers, say: Any
    ) -> None:
        del say
        done[folder.root.name](stop, workers)

    monkeypatch.setattr(runner, "Kit", Kit)
    monkeypatch.setattr(runner, "volunteer", volunteer)
    monkeypatch.setattr(CommunityFolder, "load", lambda self: None)
    return done


def test_one_that_is_refused_does_not_end_the_others(lives: dict[str, Any]) -> None:
    stop, ended = threading.Event(), []
    told: list[threading.Event] = []

    def refused(own: threading.Event, _workers: SharedWorkers) -> None:
        told.append(own)
        raise Refused("farm has this volunteer as banned")

    def goes_on(own: threading.Event, _workers: SharedWorkers) -> None:
        assert not own.wait(0.3)
        stop.set()
        own.wait()
        ended.append("town")

    lives.update(farm=refused, town=goes_on)
    with pytest.raises(Refused, match="farm"):
        take_part(HOME, [CommunityFolder(Path("farm")), CommunityFolder(Path("town"))], stop)
    assert ended == ["town"]
    assert told[0].is_set()  # so that what it had started ends, too


def test_a_volunteer_that_finished_leaves_the_process_to_the_others(lives: dict[str, Any]) -> None:
    order = []

    def finishes(own: threading.Event, _workers: SharedWorkers) -> None:
        own.set()  # as the governor does when its owner said finish
        order.append("farm")

    def stays(own: threading.Event, _workers: SharedWorkers) -> None:
        assert not own.wait(0.3)
        order.append("town")

    lives.update(farm=finishes, town=stays)
    take_part(
        HOME, [CommunityFolder(Path("farm")), CommunityFolder(Path("town"))], threading.Event()
    )
    assert order == ["farm", "town"]


def test_communities_on_one_base_share_a_worker(lives: dict[str, Any]) -> None:
    shared = []

    def at_work(_own: threading.Event, workers: SharedWorkers) -> None:
        shared.append(workers.worker(b"base", "somewhere", "cpu", MachineSettings()))

    lives.update(farm=at_work, town=at_work)
    take_part(
        HOME, [CommunityFolder(Path("farm")), CommunityFolder(Path("town"))], threading.Event()
    )
    assert shared[0] is shared[1]
    workers = SharedWorkers()
    different = {
        id(workers.worker(base, "m", device, MachineSettings.model_validate(machine)))
        for base, device, machine in (
            (b"1", "cpu", {}), (b"2", "cpu", {}), (b"1", "cuda", {}),
            (b"1", "cuda", {"base_bits": 4}), (b"1", "cuda", {"embedding_in_ram": True}),
        )
    }  # fmt: skip
    assert len(different) == 5


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = kept
    root.setLevel(level)


def started(work: Callable[[], None], name: str) -> threading.Thread:
    thread = beneath(work, name)
    thread.start()
    return thread


@pytest.mark.usefixtures("root_logger")
def test_each_community_has_its_own_log(tmp_path: Path, lives: dict[str, Any]) -> None:
    """Also of threads started by threads: a line's, a heartbeat's."""
    folders = [CommunityFolder(tmp_path / name) for name in ("farm", "town")]
    log = logging.getLogger("nomoat.client.test")

    def says(what: str) -> Any:
        def speak(_own: threading.Event, _workers: SharedWorkers) -> None:
            def line() -> None:
                started(lambda: log.info("%s below", what), "heartbeat").join()

            started(line, "line").join()
            log.info("%s", what)

        return speak

    keep_logs(folders)
    lives.update(farm=says("cows"), town=says("houses"))
    take_part(HOME, folders, threading.Event())
    log.info("everyone")
    texts = [folder.log.read_text() for folder in folders]
    for text, mine, theirs in zip(texts, ("cows", "houses"), ("houses", "cows"), strict=True):
        assert f"{mine}\n" in text
        assert f"{mine} below" in text
        assert "everyone" in text
        assert theirs not in text
