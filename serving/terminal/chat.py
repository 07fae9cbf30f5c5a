"""The terminal around a chat: reads lines, shows answers as they come, Ctrl-C stops one."""

from __future__ import annotations

import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.inference.chat_session import (
    Ask,
    ChatSession,
    Effect,
    KeepRating,
    Quit,
    Save,
    Say,
)
from nomoat.lora.inference.fitting import fitting
from nomoat.lora.inference.prompts import Message, Prompts
from nomoat.lora.inference.requests import (
    AnswerEvent,
    Ended,
    Failed,
    Piece,
    Question,
    Running,
    Sampling,
)
from nomoat.serving.terminal.ratings import Ratings, chat_row
from nomoat.serving.voices import EngineVoices
from nomoat.storage.atomic import replacing

if TYPE_CHECKING:
    from rich.console import Console

NOTICED_S = 0.2


@dataclass(frozen=True)
class Talk:
    """A chat in a terminal. read: the next line, EOFError at the end; clock: unix seconds."""

    session: ChatSession
    voices: EngineVoices
    prompts: Prompts
    sampling: Sampling
    console: Console
    ratings: Ratings
    read: Callable[[str], str]
    clock: Callable[[], float]

    def run(self) -> None:
        """Talk until the end of input, /quit, or Ctrl-C while nothing is being answered."""
        while True:
            try:
                line = self.read("… " if self.session.unfinished else "> ")
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            for effect in self.session.typed(line):
                if isinstance(effect, Quit):
                    return
                self.do(effect)

    def do(self, effect: Effect) -> None:
        """Carry out one thing the chat wants done; what goes wrong is one line, and it goes on."""
        try:
            if isinstance(effect, Ask):
                self._answer(effect)
            elif isinstance(effect, Say):
                self._say(effect.text)
            elif isinstance(effect, Save):
                with replacing(Path(effect.file).expanduser()) as file:
                    file.write(chat_row(effect.messages).encode())
                self._say(f"written: {effect.file}")
            elif isinstance(effect, KeepRating):
                exact = self.voices.exact(effect.voice)
                kept = replace(effect, voice=exact)
                self.ratings.keep(kept, self.voices.source.title, self.clock())
                self._say(f"kept on this machine: {exact}, {effect.stars} of 5")
        except NomoatError as problem:
            self._say(str(problem))

    def _answer(self, ask: Ask) -> None:
        try:
            answering = self._begin(ask)
        except NomoatError:
            self.session.failed()
            raise
        texts = dict.fromkeys(ask.voices, "")
        try:
            self._show(answering, texts)
        except KeyboardInterrupt:
            answering.stop()
            self._say("[stopped]")
        for voice, reason in answering.failed.items():
            self._say(f"{voice}: {reason}")
        for voice in ask.voices:
            if voice not in answering.failed:
                self.session.answered(voice, texts[voice])
        if len(answering.failed) == len(ask.voices):
            self.session.failed()

    def _begin(self, ask: Ask) -> _Answering:
        """Put all questions; the oldest exchanges are left out where the context is too short."""
        prompt = self._fitting(ask.messages)
        inbox: queue.SimpleQueue[tuple[str, AnswerEvent]] = queue.SimpleQueue()
        running = {}
        for voice in ask.voices:
            question = Question(prompt, self.voices.key(voice), self.sampling)

            def deliver(event: AnswerEvent, name: str = voice) -> None:
                inbox.put((name, event))

            running[voice] = self.voices.engine.submit(question, deliver)
        return _Answering(running, inbox)

    def _fitting(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        context, most = self.voices.engine.context, self.sampling.max_tokens
        prompt, left_out = fitting(self.prompts, messages, context, most)
        if left_out:
            self._say(f"(the first {left_out} exchanges no longer fit the model's context)")
        return prompt

    def _show(self, answering: _Answering, texts: dict[str, str]) -> None:
        """Fill `texts` and show them while they are written: one in a line, several in columns."""
        if len(texts) == 1:
            for voice, event in answering.events():
                if isinstance(event, Piece):
                    texts[voice] += event.text
                    self.console.print(event.text, end="", markup=False, highlight=False)
                    self.console.file.flush()
            self.console.print()
            return
        from rich.live import Live

        from nomoat.serving.terminal.columns import columns

        with Live(columns(texts), console=self.console, refresh_per_second=8) as live:
            for voice, event in answering.events():
                if isinstance(event, Piece):
                    texts[voice] += event.text
                    live.update(columns(texts))

    def _say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)


@dataclass
class _Answering:
    """Answers on their way."""

    running: dict[str, Running]
    inbox: queue.SimpleQueue[tuple[str, AnswerEvent]]
    failed: dict[str, str] = field(default_factory=dict)

    def events(self) -> Iterator[tuple[str, AnswerEvent]]:
        """(voice, event) until all have ended."""
        waited_for = set(self.running)
        while waited_for:
            voice, event = self.inbox.get()
            if isinstance(event, Failed):
                self.failed[voice] = event.message
            if isinstance(event, Ended | Failed):
                waited_for.discard(voice)
            yield voice, event

    def stop(self) -> None:
        """Let nothing more be computed; what there is stays."""
        for answer in self.running.values():
            answer.cancel()


def read_line(prompt: str) -> str:
    """The next line typed, with history and editing where the terminal has them."""
    if sys.stdin.isatty():
        with _signals_noticed():
            return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextmanager
def _signals_noticed() -> Iterator[None]:
    """Let a Ctrl-C count that comes after the prompt is shown and before `input` waits for keys.

    CPython looks for signals only when one breaks off its wait (Modules/readline.c), so that such
    a Ctrl-C would lie until the next key. A timer breaks the wait off, five times a second.
    """
    if not hasattr(signal, "setitimer"):  # Windows, where `input` has no such wait
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, NOTICED_S, NOTICED_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
