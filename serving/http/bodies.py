"""Requests as clients send them. Fields that are not known here are passed over, as OpenAI does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nomoat.lora.inference.prompts import Message
from nomoat.lora.inference.requests import Sampling
from nomoat.serving.http.errors import ApiError

MOST_STOPS = 16
MOST_CHOICES = 8
MOST_TOP = 20
CHAT_TOKENS = 512  # of an answer whose length nobody said: a small model may never stop
TEXT_TOKENS = 16  # OpenAI's own default
TEMPERATURE = 0.7


class Part(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="ignore")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """A turn: its content is a text, or a list of parts."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    def message(self) -> Message:
        """The turn as a prompt has it; ApiError for a part that is no text."""
        if isinstance(self.content, list):
            odd = next((part.type for part in self.content if part.text is None), None)
            if odd is not None:
                raise ApiError(400, f"parts of type {odd!r} cannot be read here", param="messages")
            text = "".join(part.text or "" for part in self.content)
        else:
            text = self.content or ""
        if self.role in ("system", "developer"):
            return Message("system", text)
        return Message("assistant" if self.role == "assistant" else "user", text)


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class _Asked(BaseModel):
    """Fields of both kinds of request."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def tells_usage(self) -> bool:
        """Tell whether the stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self, most: int, logprobs: int | None) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        temperature = TEMPERATURE if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(most, temperature, top_p, self.seed, stop, logprobs)


class ChatBody(_Asked):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_TOP)] = None

    def sampling(self) -> Sampling:
        """The settings that were given, and the usual ones."""
        most = self.max_completion_tokens or self.max_tokens or CHAT_TOKENS
        return self._sampling(most, (self.top_logprobs or 0) if self.logprobs else None)


class TextBody(_Asked):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_TOP)] = None
    echo: bool = False

    def sampling(self) -> Sampling:
        """The settings that were given, and the usual ones."""
        return self._sampling(self.max_tokens or TEXT_TOKENS, self.logprobs)

    def prompts(self) -> list[str | list[int]]:
        """One or several prompts; ApiError if there is none."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        if not given:
            raise ApiError(400, "prompt is empty", param="prompt")
        return list(given)
