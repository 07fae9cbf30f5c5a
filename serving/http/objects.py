"""Answers as OpenAI's API words them: whole objects and the chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nomoat.lora.inference.requests import Ended, Piece, TokenLogProb


@dataclass(frozen=True)
class Head:
    """Fields of every object of one answer. kind: "chat.completion" or "text_completion"."""

    id: str
    created: int
    model: str
    kind: str

    @property
    def chat(self) -> bool:
        """Tell whether it is an answer in a chat."""
        return self.kind == "chat.completion"

    def whole(self, answers: Sequence[tuple[Sequence[Piece], Ended]]) -> dict[str, Any]:
        """The object of answers that are not streamed."""
        make = self._message if self.chat else self._text
        choices = [make(k, pieces, end.reason) for k, (pieces, end) in enumerate(answers)]
        ends = [end for _, end in answers]
        return {**self._common(self.kind), "choices": choices, "usage": usage(ends)}

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """The chunk of one piece."""
        if self.chat:
            delta = {"content": piece.text}
            return self._delta(index, delta, None, _chat_logprobs(piece.logprobs))
        return {**self._common(self.kind), "choices": [self._text(index, [piece], None)]}

    def opening(self, index: int) -> dict[str, Any] | None:
        """The chunk before the first piece; None if there is none."""
        if not self.chat:
            return None
        return self._delta(index, {"role": "assistant", "content": ""}, None, None)

    def closing(self, index: int, end: Ended) -> dict[str, Any]:
        """The chunk that says why an answer ended."""
        if self.chat:
            return self._delta(index, {}, end.reason, None)
        return {**self._common(self.kind), "choices": [self._text(index, [], end.reason)]}

    def counts(self, ends: Sequence[Ended]) -> dict[str, Any]:
        """The last chunk of a stream that was asked for usage."""
        kind = f"{self.kind}.chunk" if self.chat else self.kind
        return {**self._common(kind), "choices": [], "usage": usage(ends)}

    def _common(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _delta(
        self, index: int, delta: dict[str, Any], reason: str | None, logprobs: Any
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._common(f"{self.kind}.chunk"), "choices": [choice]}

    def _message(self, index: int, pieces: Sequence[Piece], reason: str) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        told = [token for piece in pieces for token in piece.logprobs]
        message: dict[str, Any] = {"role": "assistant", "content": text}
        message |= {"refusal": None, "annotations": []}
        return {
            "index": index,
            "message": message,
            "logprobs": _chat_logprobs(told),
            "finish_reason": reason,
        }

    def _text(self, index: int, pieces: Sequence[Piece], reason: str | None) -> dict[str, Any]:
        told = [token for piece in pieces for token in piece.logprobs]
        return {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": _text_logprobs(told),
            "finish_reason": reason,
        }


def usage(ends: Sequence[Ended]) -> dict[str, Any]:
    """Tokens read and written."""
    read, written = (
        sum(end.prompt_tokens for end in ends),
        sum(end.completion_tokens for end in ends),
    )
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def model(name: str, created: int) -> dict[str, Any]:
    """The entry of one model id."""
    return {"id": name, "object": "model", "created": created, "owned_by": "nomoat"}


def event(value: Any) -> str:
    """One event of a stream (server-sent events)."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}\n\n"


def _chat_logprobs(told: Sequence[TokenLogProb]) -> dict[str, Any] | None:
    if not told:
        return None
    content = [
        {
            **_entry(token.text, token.logprob),
            "top_logprobs": [_entry(text, value) for text, value in token.others],
        }
        for token in told
    ]
    return {"content": content, "refusal": None}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _text_logprobs(told: Sequence[TokenLogProb]) -> dict[str, Any] | None:
    if not told:
        return None
    places, start = [], 0
    for token in told:
        places.append(start)
        start += len(token.text)
    return {
        "tokens": [token.text for token in told],
        "token_logprobs": [token.logprob for token in told],
        "top_logprobs": [dict(token.others) for token in told],
        "text_offset": places,
    }
