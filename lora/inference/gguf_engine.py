"""The fast engine: llama.cpp, with every adapter as a LoRA file beside one model file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference import llama_server
from nomoat.lora.inference.llama_server import LlamaServer, Setup
from nomoat.lora.inference.requests import (
    BASE,
    AnswerEvent,
    Deliver,
    Ended,
    Failed,
    NotOffered,
    Piece,
    Question,
    TokenLogProb,
    room,
)

MOST_WAITING: Final = 64  # answers asked for at a time; the server computes `slots` of them
RANDOM: Final = -1


@dataclass(eq=False)
class _Loaded:
    """A running server and its voices' adapters, by place; `users` answers are on their way."""

    server: LlamaServer
    places: dict[str, tuple[int, ...]]
    users: int = 0
    retired: bool = False


@dataclass(eq=False)
class _Cancellable:
    gone: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop at the next token."""
        self.gone.set()


class GgufEngine:
    """Answers with llama.cpp. write_adapter: makes the LoRA file of an adapter.

    llama.cpp loads adapters when it starts: a new offer starts a second server on the same model
    file, and the first one ends with its last answer. apart: a server for each voice, which takes
    memory for keys and values each time; one server computes answers of several voices in turns,
    not at once, and is then slower than for one voice alone (docs/experiments.md).
    """

    def __init__(
        self, setup: Setup, write_adapter: Callable[[str, Adapter], Path], apart: bool = False
    ) -> None:
        self._setup, self._write = replace(setup, adapters=()), write_adapter
        self._apart = apart
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MOST_WAITING, "inference")
        self._loaded = {BASE: _Loaded(llama_server.start(self._setup), {BASE: ()})}
        self._closed = False

    @property
    def context(self) -> int:
        """Tokens of one slot."""
        return self._setup.context

    def offer(self, voices: Mapping[str, Adapter]) -> None:
        """Answer under these adapters from now on; BadData if llama.cpp cannot load one."""
        if {BASE, *voices} == set(self._loaded):
            return
        fresh = self._each(voices) if self._apart else self._all(voices)
        with self._lock:
            gone = set(self._loaded.values()) - set(fresh.values())
            self._loaded = fresh
            for old in gone:
                old.retired = True
            idle = [old for old in gone if old.users == 0]
        for old in idle:
            llama_server.stop(old.server)

    def _all(self, voices: Mapping[str, Adapter]) -> dict[str, _Loaded]:
        """One server with every adapter."""
        files = tuple(self._write(voice, adapter) for voice, adapter in voices.items())
        server = llama_server.start(replace(self._setup, adapters=files))
        loaded = _Loaded(server, {BASE: ()} | {voice: (n,) for n, voice in enumerate(voices)})
        return dict.fromkeys(loaded.places, loaded)

    def _each(self, voices: Mapping[str, Adapter]) -> dict[str, _Loaded]:
        """A server for each voice: those there are go on, others are started."""
        fresh = {BASE: self._loaded[BASE]}
        try:
            for voice, adapter in voices.items():
                known = self._loaded.get(voice)
                if known is None:
                    setup = replace(self._setup, adapters=(self._write(voice, adapter),))
                    known = _Loaded(llama_server.start(setup), {voice: (0,)})
                fresh[voice] = known
        except BaseException:
            for made in set(fresh.values()) - set(self._loaded.values()):
                llama_server.stop(made.server)
            raise
        return fresh

    def submit(self, question: Question, deliver: Deliver) -> _Cancellable:
        """Answer a question."""
        limit = room(question, self.context)
        with self._lock:
            loaded = self._loaded.get(question.voice)
            if loaded is None or self._closed:
                raise NotOffered
            loaded.users += 1
        answer = _Cancellable()
        self._pool.submit(self._run, loaded, question, limit, deliver, answer)
        return answer

    def close(self) -> None:
        """End once the answers on their way have noticed."""
        self._closed = True
        self._pool.shutdown(wait=True)
        for loaded in set(self._loaded.values()):
            llama_server.stop(loaded.server)

    def _run(
        self,
        loaded: _Loaded,
        question: Question,
        limit: int,
        deliver: Deliver,
        answer: _Cancellable,
    ) -> None:
        chosen = loaded.places[question.voice]
        body = _body(question, limit) | {"lora": loaded.server.scales(chosen)}
        state = _Progress(question, limit)

        def tell(event: AnswerEvent) -> None:
            if not answer.gone.is_set():
                deliver(event)

        def receive(chunk: Any) -> bool:
            for event in state.events(chunk):
                tell(event)
            return answer.gone.is_set() or self._closed

        try:
            loaded.server.engine.handle_completions(body, receive)
            if not state.ended:
                tell(Failed("the server is closing" if self._closed else "llama.cpp stopped"))
        except Exception as problem:  # noqa: BLE001 - a shell: whoever waits is told
            tell(Failed(" ".join(str(problem).split())[:200] or type(problem).__name__))
        finally:
            self._release(loaded)

    def _release(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.users -= 1
            last = loaded.retired and loaded.users == 0
        if last:
            llama_server.stop(loaded.server)


@dataclass
class _Progress:
    """TurnFormat llama.cpp's chunks into events. text: all that was told so far."""

    question: Question
    limit: int
    ended: bool = False

    def events(self, chunk: Any) -> list[AnswerEvent]:
        """The events of one chunk, or of a list of them."""
        if isinstance(chunk, Sequence) and not isinstance(chunk, str | bytes):
            return [event for part in chunk for event in self.events(part)]
        if self.ended:
            return []
        if "error" in chunk:
            self.ended = True
            return [Failed(str(chunk["error"].get("message", "llama.cpp failed"))[:200])]
        choice = chunk["choices"][0]
        found: list[AnswerEvent] = []
        told = _logprobs(choice, self.question.sampling.logprobs)
        if choice.get("text") or told:
            found.append(Piece(choice.get("text") or "", told))
        if choice.get("finish_reason"):
            self.ended = True
            usage = chunk.get("usage") or {}
            reason: Literal["stop", "length"] = (
                "length" if choice["finish_reason"] == "length" else "stop"
            )
            written = int(usage.get("completion_tokens", 0))
            found.append(Ended(reason, len(self.question.prompt), written))
        return found


def _body(question: Question, limit: int) -> dict[str, Any]:
    """The request to llama.cpp: none of the samplers it adds by itself."""
    settings = question.sampling
    body: dict[str, Any] = {
        "prompt": list(question.prompt),
        "max_tokens": limit,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "seed": RANDOM if settings.seed is None else settings.seed % (1 << 32),
        "stop": list(settings.stop),
        "stream": True,
        "cache_prompt": False,
    }
    if settings.logprobs is not None:
        body["n_probs"] = max(1, settings.logprobs)
    return body


def _logprobs(choice: Any, most: int | None) -> tuple[TokenLogProb, ...]:
    if most is None:
        return ()
    content = (choice.get("logprobs") or {}).get("content") or []
    return tuple(
        TokenLogProb(
            str(entry["token"]),
            float(entry["logprob"]),
            tuple((str(o["token"]), float(o["logprob"])) for o in entry["top_logprobs"][:most]),
        )
        for entry in content
    )
