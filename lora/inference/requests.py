"""Requests to an engine and the events that answer them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter

BASE = ""  # the voice of the base model alone


class ContextExceeded(UsageError):
    """The prompt leaves no room for an answer in the model's context."""

    def __init__(self, prompt: int, context: int) -> None:
        super().__init__(
            f"the prompt has {prompt} tokens, and the model's context is {context}: "
            "shorten it, or start a new conversation"
        )


class NotOffered(UsageError):
    """The engine has not been given this voice, or has closed."""

    def __init__(self) -> None:
        super().__init__("this adapter is not offered here")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings by which the next token is chosen. temperature 0: the likeliest one.

    top_p: of the probability mass (Holtzman et al. 2020, arXiv:1904.09751). stop: texts that end
    the answer and are not part of it. logprobs: alternatives told of each token; None: none, and
    nothing of the token itself.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt as token ids, and the voice that answers: the key of an adapter, or BASE."""

    prompt: tuple[int, ...]
    voice: str
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class TokenLogProb:
    """A token's text and log-probability; `others` are the likeliest ones in its place."""

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of the answer's text; may be empty where a character is not whole yet."""

    text: str
    logprobs: tuple[TokenLogProb, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole: the model stopped, or `length` tokens were all it may have."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No further part comes: the engine could not go on."""

    message: str


AnswerEvent: TypeAlias = Piece | Ended | Failed
Deliver: TypeAlias = Callable[[AnswerEvent], None]


class Running(Protocol):
    """An answer on its way."""

    def cancel(self) -> None:
        """Stop computing it; nothing more is delivered once this has been noticed."""


class Engine(Protocol):
    """One base model answering under several adapters. Every method may be called by any thread.

    `context` is how many tokens prompt and answer may have together.
    """

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, at most."""

    def offer(self, voices: Mapping[str, Adapter]) -> None:
        """Answer under these adapters, by their keys, and under no others any more.

        An answer that is on its way ends under the adapter it began with.
        """

    def submit(self, question: Question, deliver: Deliver) -> Running:
        """Answer a question; `deliver` is called by the engine's thread, event by event.

        Raises ContextExceeded, or NotOffered.
        """

    def close(self) -> None:
        """End; answers on their way fail."""


def room(question: Question, context: int) -> int:
    """Tokens the answer may have; ContextExceeded if the prompt leaves none.

    UsageError for an empty prompt: there is nothing to go on from.
    """
    if not question.prompt:
        raise UsageError("the prompt is empty, and this model has no token to begin with")
    left = context - len(question.prompt)
    if left < 1:
        raise ContextExceeded(len(question.prompt), context)
    return max(1, min(question.sampling.max_tokens, left))
