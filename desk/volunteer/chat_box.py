"""A conversation with the adapter at hand, on a volunteer's page.

The model is loaded when something is asked, on the processor, and is given back when nothing was
asked for a while, or as soon as a round is worked on here: its memory goes first.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.volunteer.status import read_status, running
from nomoat.lora.inference.prompts import Message, Prompts
from nomoat.lora.inference.requests import AnswerEvent, Failed, Piece, Question, Running, Sampling
from nomoat.serving.sources.membership import JoinedCommunity
from nomoat.serving.sources.source import check_known
from nomoat.serving.voices import EngineVoices

IDLE_S: Final = 120.0
LOOK_S: Final = 1.0
MOST_CHARACTERS: Final = 8000
SAMPLING: Final = Sampling(max_tokens=512, temperature=0.7, top_p=0.95)
ROUND_FIRST: Final = (
    "a round is worked on here, and its memory goes first: ask when it has ended, or pause it"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speaker:
    """An engine that is up: its voices, and the prompts of its base."""

    voices: EngineVoices
    prompts: Prompts


Start = Callable[[CommunityFolder], AbstractContextManager[Speaker]]


@contextmanager
def speaking(folder: CommunityFolder) -> Iterator[Speaker]:
    """Load the base of a community for as long as the block runs; NomoatError if it cannot be."""
    import platformdirs

    from nomoat.serving import engines
    from nomoat.serving.sources.find import folder_of

    source = JoinedCommunity(folder)
    host = engines.EngineHost(Path(platformdirs.user_cache_dir("nomoat")), device="cpu")
    with engines.running(folder_of(source.base), engines.EngineKind.AUTO, host) as loaded:
        yield Speaker(EngineVoices(loaded.engine, source), Prompts.of(loaded.tokenizer))


def works_on_a_round(home: Home) -> bool:
    """Return True while a volunteer of this home trains, measures or answers."""
    found = [(folder, read_status(folder)) for folder in home.joined()]
    return any(s is not None and s.doing == "working" and running(f) for f, s in found)


@dataclass(frozen=True)
class ChatView:
    """A conversation as it stands. answer: as far as it is written; doing: empty if nothing is."""

    turns: tuple[Message, ...]
    answer: str
    doing: str
    note: str


class ChatBox:
    """One community's conversation. Every method may be called by any thread.

    busy: tells whether the memory is needed. start: loads the model.
    """

    def __init__(
        self,
        folder: CommunityFolder,
        busy: Callable[[], bool],
        start: Start = speaking,
        idle_s: float = IDLE_S,
    ) -> None:
        self._folder, self._busy, self._start, self._idle_s = folder, busy, start, idle_s
        self._changed = threading.Condition()
        self._turns: list[Message] = []
        self._answer = self._doing = self._note = self._voice = ""
        self._asked = self._stopped = self._closing = False
        self._thread: threading.Thread | None = None

    def view(self) -> ChatView:
        """Return what there is to show."""
        with self._changed:
            return ChatView(tuple(self._turns), self._answer, self._doing, self._note)

    def ask(self, text: str, voice: str) -> None:
        """Put a question; UsageError if it cannot be answered now."""
        text = text.strip()
        if not text or len(text) > MOST_CHARACTERS:
            raise UsageError(f"a question has 1 to {MOST_CHARACTERS} characters")
        check_known(voice, JoinedCommunity(self._folder).voices())
        if self._busy():
            raise UsageError(ROUND_FIRST)
        with self._changed:
            if self._doing:
                raise UsageError("an answer is on its way; stop it first")
            self._turns.append(Message("user", text))
            self._voice, self._note, self._doing = voice, "", "Loading the model"
            self._asked, self._stopped, self._closing = True, False, False
            if self._thread is None:
                self._begin()
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the answer be as far as it is."""
        self._stopped = True

    def clear(self) -> None:
        """Begin a new conversation; UsageError while an answer is on its way."""
        with self._changed:
            if self._doing:
                raise UsageError("an answer is on its way; stop it first")
            self._turns, self._note = [], ""

    def close(self) -> None:
        """Give the model's memory back, and return when that is done."""
        with self._changed:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _begin(self) -> None:
        atexit.unregister(self.close)
        atexit.register(self.close)  # an engine may be a process of its own
        self._thread = threading.Thread(target=self._serve, name="chat", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Load, answer while something is asked, give back."""
        note = ""
        try:
            with self._start(self._folder) as speaker:
                while self._next():
                    self._reply(speaker)
        except NomoatError as problem:
            note = str(problem)
        except Exception:
            log.exception("the chat broke off")
            note = "the chat broke off; where this page was opened it is said why"
        with self._changed:
            self._thread = None
            if self._asked and not (note or self._closing or self._busy()):
                self._begin()  # asked just when the model was given back
            elif self._asked or note:
                self._end(note or ("Stopped." if self._closing else ROUND_FIRST))

    def _next(self) -> bool:
        """Wait for a question; False if the model is to be given back."""
        until = time.monotonic() + self._idle_s
        with self._changed:
            while not self._asked and time.monotonic() < until:
                if self._closing or self._busy():
                    return False
                self._changed.wait(min(LOOK_S, self._idle_s))
            return self._asked and not self._closing and not self._busy()

    def _reply(self, speaker: Speaker) -> None:
        from nomoat.lora.inference.fitting import fitting

        with self._changed:
            self._asked, self._doing = False, "Answering"
            messages, voice = tuple(self._turns), self._voice
        engine, inbox = speaker.voices.engine, queue.SimpleQueue[AnswerEvent]()
        try:
            prompt, _ = fitting(speaker.prompts, messages, engine.context, SAMPLING.max_tokens)
            key = speaker.voices.key(voice)
            note = self._follow(engine.submit(Question(prompt, key, SAMPLING), inbox.put), inbox)
        except NomoatError as problem:
            note = str(problem)
        with self._changed:
            self._end(note)

    def _follow(self, answer: Running, inbox: queue.SimpleQueue[AnswerEvent]) -> str:
        """Take the answer's parts as they come; a sentence if it did not end by itself."""
        looked = time.monotonic()
        while True:
            if self._stopped or self._closing:
                answer.cancel()
                return "Stopped."
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                if self._busy():
                    answer.cancel()
                    return f"Stopped: {ROUND_FIRST}."
            try:
                event = inbox.get(timeout=LOOK_S / 4)
            except queue.Empty:
                continue
            if isinstance(event, Piece):
                with self._changed:
                    self._answer += event.text
            else:
                return event.message if isinstance(event, Failed) else ""

    def _end(self, note: str) -> None:
        """Make the answer part of the conversation; a question without one is taken back."""
        if self._answer:
            self._turns.append(Message("assistant", self._answer))
        elif self._turns and self._turns[-1].role == "user":
            self._turns.pop()
        self._answer, self._doing, self._note, self._asked = "", "", note, False
