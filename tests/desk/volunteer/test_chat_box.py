"""A chat on the page loads a model when asked, gives way to a round, and shows text as text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builders import community_info
from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.status import alone
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.desk.volunteer.chat_box import ChatBox, ChatView, Speaker
from nomoat.desk.volunteer.site import volunteer_site
from nomoat.lora.inference.requests import Deliver, Ended, Failed, Piece, Question

KEY = SigningKey(b"\7" * 32)
HOSTILE = "<script>alert(1)</script>"


class Engine:
    """Answers with the number of the prompt's tokens when it is let, or never."""

    context = 100

    def __init__(self) -> None:
        self.deliver: Deliver = lambda event: None
        self.loaded = self.left = self.cancelled = 0
        self.asked = threading.Semaphore(0)

    def submit(self, question: Question, deliver: Deliver) -> Any:
        self.deliver = deliver
        self.asked.release()
        return SimpleNamespace(cancel=self.cancel)

    def cancel(self) -> None:
        self.cancelled += 1

    def answer(self, *texts: str) -> None:
        assert self.asked.acquire(timeout=60)
        for text in texts:
            self.deliver(Piece(text))
        self.deliver(Ended("stop", 1, 1))

    @contextmanager
    def start(self, folder: CommunityFolder) -> Iterator[Speaker]:
        self.loaded += 1
        voices: Any = SimpleNamespace(engine=self, key=lambda voice: voice)
        prompts: Any = SimpleNamespace(chat=lambda messages: tuple(range(len(messages))))
        yield Speaker(voices, prompts)
        self.left += 1


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    folder = found.folder(KEY.public)
    folder.save_info(community_info(name="town", public=KEY.public))
    folder.save(VolunteerSettings(address="localhost:1", name="ada", data=tmp_path, base="pocket"))
    return found


def at_rest(box: ChatBox) -> ChatView:
    """The conversation once nothing is under way."""
    until = time.monotonic() + 20
    while box.view().doing:
        assert time.monotonic() < until
    return box.view()


def gone(engine: Engine) -> None:
    until = time.monotonic() + 20
    while engine.left < engine.loaded:
        assert time.monotonic() < until


def test_nothing_is_loaded_until_something_is_asked_and_then_once(home: Home) -> None:
    engine, [folder] = Engine(), home.joined()
    box = ChatBox(folder, lambda: False, engine.start)
    assert (engine.loaded, box.view().turns) == (0, ())
    for text in ("one", "two"):
        box.ask(text, "base")
        engine.answer("so ", "it is")
        assert at_rest(box).turns[-1].content == "so it is"
    assert (engine.loaded, [turn.role for turn in box.view().turns]) == (
        1, ["user", "assistant"] * 2,
    )  # fmt: skip
    box.close()
    assert engine.left == 1


def test_a_model_nobody_asks_is_given_back_and_loaded_anew(home: Home) -> None:
    engine, [folder] = Engine(), home.joined()
    box = ChatBox(folder, lambda: False, engine.start, idle_s=0.01)
    for number in (1, 2):
        box.ask("well?", "base")
        engine.answer("well")
        at_rest(box)
        gone(engine)
        assert engine.loaded == number


def test_a_round_has_the_memory_first(home: Home) -> None:
    engine, busy, [folder] = Engine(), threading.Event(), home.joined()
    box = ChatBox(folder, busy.is_set, engine.start)
    box.ask("well?", "base")
    assert engine.asked.acquire(timeout=60)
    engine.deliver(Piece("half an ans"))
    busy.set()
    view = at_rest(box)
    assert view.turns[-1].content == "half an ans"
    assert "its memory goes first" in view.note
    gone(engine)
    assert engine.cancelled == 1
    with pytest.raises(UsageError, match="its memory goes first"):
        box.ask("now?", "base")
    assert engine.loaded == 1


def test_what_goes_wrong_is_a_sentence_and_takes_the_question_back(home: Home) -> None:
    engine, [folder] = Engine(), home.joined()

    @contextmanager
    def no_room(_folder: CommunityFolder) -> Iterator[Speaker]:
        raise NomoatError("it takes 9 GB")
        yield

    box = ChatBox(folder, lambda: False, no_room)
    box.ask("well?", "base")
    assert (at_rest(box).note, box.view().turns) == ("it takes 9 GB", ())
    box = ChatBox(folder, lambda: False, engine.start)
    box.ask("well?", "base")
    assert engine.asked.acquire(timeout=60)
    with pytest.raises(UsageError, match="on its way"):
        box.ask("and?", "base")
    engine.deliver(Failed("no memory"))
    assert (at_rest(box).note, box.view().turns) == ("no memory", ())
    for text, voice in (("", "base"), ("x" * 8001, "base"), ("x", "nobody")):
        with pytest.raises(UsageError):
            box.ask(text, voice)
    box.close()


def test_the_page_asks_stops_and_shows_text_alone(home: Home, browser: Callable) -> None:
    engine, [folder] = Engine(), home.joined()
    see = browser(volunteer_site(home, engine.start).app)
    page = see.send("/chat", order="ask", text=HOSTILE, voice="base", back="/chat")
    assert "&lt;script&gt;alert" in page
    engine.answer(HOSTILE, HOSTILE)
    until = time.monotonic() + 20
    while "<h2>Answer</h2>" not in (page := see.html("/chat")) or "Answering" in page:
        assert time.monotonic() < until
    assert "<script>alert" not in page
    with alone(folder):
        StatusWriter(folder).working("train.local")
        page = see.send("/chat", order="ask", text="now?", voice="base", back="/chat")
        assert "Not done: a round is worked on here" in page
    assert "<h2>You</h2>" not in see.send("/chat", order="new", back="/chat")
    refused = see.client.post("/chat", data={"order": "ask", "text": "x", "voice": "base"})
    assert "nothing was changed" in refused.text  # a form of another page
    assert engine.loaded == 1
