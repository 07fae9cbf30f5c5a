"""A chat as a machine: what is typed goes in, what to do comes out. No terminal, no engine.

    chat = ChatSession(("base", "community"), voice="community")
    chat.typed("What is a list?")    -> [Ask(("community",), messages)]
    chat.answered("community", "…")  -> []       it is part of the conversation now
    chat.typed("/compare")           -> [Say("…")]     the next question goes to all voices
    chat.typed("/rate 5")            -> [KeepRating(…)]

A line that ends in a backslash goes on; a line of three double quotes opens and closes a block.
The conversation goes on with the answer of the chosen voice; in a comparison, with the first one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from nomoat.lora.inference.prompts import Message

BLOCK: Final = '"""'
LEAST, MOST = 1, 5  # stars

HELP: Final = """\
/base /community /personal   answer under this voice from now on
/compare                     answer under all voices, side by side (again: only the chosen one)
/rate 1-5                    keep how good the last answer was, on this machine
/better VOICE                after a comparison: keep which answer was the best, and go on with it
/system TEXT                 begin again with this system message
/again                       answer the last question once more
/new                         begin a new conversation
/save FILE                   write the conversation as JSON Lines
/quit                        leave (so does the end of input)
\\ at a line's end goes on; a line of \"\"\" opens and closes a block of several lines"""


@dataclass(frozen=True, slots=True)
class Ask:
    """Put the conversation to these voices, in one batch."""

    voices: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Show a line to the person."""

    text: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write the conversation to a file."""

    file: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class KeepRating:
    """Keep how good an answer was. others: the answers of other voices to the same question."""

    voice: str
    stars: int
    messages: tuple[Message, ...]  # the last one is the answer
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


Effect: TypeAlias = Ask | Say | Save | KeepRating | Quit


@dataclass
class ChatSession:
    """One conversation with one or several voices."""

    voices: tuple[str, ...]
    voice: str
    comparing: bool = False
    system: str = ""
    _turns: list[Message] = field(default_factory=list)
    _answers: dict[str, str] = field(default_factory=dict)  # to the last question
    _block: list[str] | None = None
    _open: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message first."""
        first = (Message("system", self.system),) if self.system else ()
        return (*first, *self._turns)

    @property
    def unfinished(self) -> bool:
        """Tell whether what was typed goes on in the next line."""
        return self._block is not None or bool(self._open)

    def typed(self, line: str) -> list[Effect]:
        """One line, as it was typed."""
        if self._block is not None:
            return self._in_block(line)
        if line.strip() == BLOCK:
            self._block = [self._open] if self._open else []
            self._open = ""
            return []
        if line.endswith("\\"):
            self._open += line[:-1] + "\n"
            return []
        text, self._open = (self._open + line).strip(), ""
        if not text:
            return []
        return self._command(text) if text.startswith("/") else self._ask(text)

    def answered(self, voice: str, text: str) -> list[Effect]:
        """A voice's whole answer, or as much as there was when it was stopped."""
        self._answers[voice] = text
        if voice == self._leading():
            self._turns.append(Message("assistant", text))
        return []

    def failed(self) -> list[Effect]:
        """There is no answer: the question is taken back."""
        if self._turns and self._turns[-1].role == "user":
            self._turns.pop()
        return []

    def _leading(self) -> str:
        """The voice whose answers the conversation goes on with."""
        return self.voice

    def _in_block(self, line: str) -> list[Effect]:
        assert self._block is not None
        if line.strip() != BLOCK:
            self._block.append(line)
            return []
        text, self._block = "\n".join(self._block).strip(), None
        return self._ask(text) if text else []

    def _ask(self, text: str) -> list[Effect]:
        self._turns.append(Message("user", text))
        return self._put()

    def _put(self) -> list[Effect]:
        self._answers = {}
        asked = self.voices if self.comparing else (self.voice,)
        return [Ask(asked, self.messages)]

    def _command(self, text: str) -> list[Effect]:
        name, _, rest = text[1:].partition(" ")
        commands: dict[str, Callable[[str], list[Effect]]] = {
            "compare": self._compare,
            "rate": self._rate,
            "better": self._better,
            "system": self._begin,
            "new": lambda _: self._begin(self.system),
            "again": self._again,
            "save": self._save,
            "quit": lambda _: [Quit()],
            "exit": lambda _: [Quit()],
            "help": lambda _: [Say(HELP)],
        }
        if name in self.voices:
            self.voice, self.comparing = name, False
            return [Say(f"{name} answers from now on")]
        if name in commands:
            return commands[name](rest.strip())
        return [Say(f"there is no /{name}; /help shows what there is")]

    def _compare(self, _: str) -> list[Effect]:
        if len(self.voices) < 2:
            return [Say("there is only one voice here")]
        self.comparing = not self.comparing
        who = ", ".join(self.voices) if self.comparing else self.voice
        return [Say(f"{who} will answer" if self.comparing else f"{who} answers from now on")]

    def _rate(self, rest: str) -> list[Effect]:
        if not rest.isdecimal() or not LEAST <= int(rest) <= MOST:
            return [Say(f"/rate takes {LEAST} (bad) to {MOST} (very good)")]
        return self._rated(self._leading(), int(rest))

    def _better(self, voice: str) -> list[Effect]:
        if voice not in self._answers or len(self._answers) < 2:
            known = ", ".join(self._answers) or "no answers yet"
            return [Say(f"/better takes a voice of the last comparison ({known})")]
        rated = self._rated(voice, MOST)
        self._turns[-1] = Message("assistant", self._answers[voice])
        self.voice = voice
        return [*rated, Say(f"the conversation goes on with the answer of {voice}")]

    def _rated(self, voice: str, stars: int) -> list[Effect]:
        if not self._turns or self._turns[-1].role != "assistant" or voice not in self._answers:
            return [Say("there is no answer to rate yet")]
        before = self.messages[:-1]
        others = tuple((name, text) for name, text in self._answers.items() if name != voice)
        answer = Message("assistant", self._answers[voice])
        return [KeepRating(voice, stars, (*before, answer), others)]

    def _begin(self, system: str) -> list[Effect]:
        self.system, self._turns, self._answers = system, [], {}
        return [Say("a new conversation")]

    def _again(self, _: str) -> list[Effect]:
        if self._turns and self._turns[-1].role == "assistant":
            self._turns.pop()
        return self._put() if self._turns else [Say("there is no question yet")]

    def _save(self, file: str) -> list[Effect]:
        if not file or "\0" in file or not self._turns:
            return [Say("/save takes the name of a file, once something has been said")]
        return [Save(file, self.messages)]
