"""The API: routes, the key, and what happens when a client hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from nomoat.lora.inference.prompts import Prompts
from nomoat.lora.inference.requests import (
    ContextExceeded,
    Ended,
    NotOffered,
    Piece,
    Question,
    Sampling,
)
from nomoat.serving.http import errors, objects
from nomoat.serving.http.answers import Answers
from nomoat.serving.http.bodies import ChatBody, TextBody
from nomoat.serving.http.errors import ApiError, api_error
from nomoat.serving.http.objects import Head
from nomoat.serving.sources.source import BASE
from nomoat.serving.voices import EngineVoices

MOST_BODY_BYTES: Final = 32 << 20
TRIES: Final = 5
LOOK_S: Final = 0.5  # between two looks whether a client that waits for a whole answer is there


@dataclass(frozen=True)
class ApiService:
    """All that the API is in front of. key: clients say it; clock: unix seconds, for `created`."""

    voices: EngineVoices
    prompts: Prompts
    key: str
    clock: Callable[[], float]
    origins: tuple[str, ...] = ()

    @property
    def longest_prompt(self) -> int:
        """Characters beyond which a prompt cannot fit, whatever its tokens are."""
        return self.voices.engine.context * self.prompts.longest_token


def make_app(service: ApiService) -> FastAPI:
    """The API in front of `service`."""
    app = FastAPI(title="nomoat", docs_url=None, redoc_url=None, openapi_url=None)
    errors.install(app)
    if service.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    started = int(service.clock())
    keyed = [Depends(_key_check(service.key))]

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=keyed)
    async def models() -> dict[str, Any]:
        names = await run_in_threadpool(service.voices.source.voices)
        return {"object": "list", "data": [objects.model(name, started) for name in names]}

    @app.get("/v1/models/{name}", dependencies=keyed)
    async def model(name: str) -> dict[str, Any]:
        await run_in_threadpool(service.voices.exact, name)
        return objects.model(name, started)

    @app.post("/v1/chat/completions", dependencies=keyed)
    async def chat(request: Request) -> Response:
        return await _answer(service, request, await _read(request, ChatBody))

    @app.post("/v1/completions", dependencies=keyed)
    async def text(request: Request) -> Response:
        return await _answer(service, request, await _read(request, TextBody))

    return app


def _key_check(key: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise ApiError(401, "Incorrect API key provided", "invalid_api_key")

    return check


async def _read(request: Request, kind: type[BaseModel]) -> Any:
    """The body, checked; ApiError if it is too long, no JSON, or lacks something."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise ApiError(413, f"the request is longer than {MOST_BODY_BYTES >> 20} MiB")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as problem:
        raise errors.invalid(problem) from None


async def _answer(service: ApiService, request: Request, body: ChatBody | TextBody) -> Response:
    answers, voice = await _begun(service, body)
    chat = isinstance(body, ChatBody)
    head = Head(
        f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        int(service.clock()),
        voice or BASE,
        "chat.completion" if chat else "text_completion",
    )
    if body.stream:
        lines = _stream(head, answers, body.tells_usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
    return await _whole(request, head, answers, _echoes(body))


async def _begun(service: ApiService, body: ChatBody | TextBody) -> tuple[Answers, str]:
    """The answers on their way, and the exact voice that gives them.

    Between loading a voice and asking it, other requests may have displaced it: then once more.
    """
    for _ in range(TRIES):
        questions = await run_in_threadpool(_questions, service, body)
        with contextlib.suppress(NotOffered):
            return Answers.begin(service.voices.engine, questions), questions[0].voice
    raise ApiError(503, "too many different adapters are asked for at once; try again")


def _questions(service: ApiService, body: ChatBody | TextBody) -> list[Question]:
    """One for each answer that is wanted."""
    sampling, voice = body.sampling(), service.voices.key(body.model)
    if isinstance(body, ChatBody):
        messages = [message.message() for message in body.messages]
        _check_length(service, sum(len(message.content) for message in messages))
        prompts = [service.prompts.chat(messages)]
    else:
        prompts = []
        for given in body.prompts():
            if isinstance(given, str):
                _check_length(service, len(given))
                prompts.append(service.prompts.text(given))
            else:
                prompts.append(service.prompts.checked(given))
    return [
        Question(prompt, voice, _reseeded(sampling, number))
        for prompt in prompts
        for number in range(body.choices)
    ]


def _check_length(service: ApiService, characters: int) -> None:
    """ContextExceeded, before megabytes are split into tokens, if they cannot fit."""
    if characters > service.longest_prompt:
        least = -(-characters // service.prompts.longest_token)
        raise ContextExceeded(least, service.voices.engine.context)


def _reseeded(sampling: Sampling, number: int) -> Sampling:
    """Several answers to one prompt are drawn differently."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + number)


def _echoes(body: ChatBody | TextBody) -> list[str]:
    if isinstance(body, ChatBody) or not body.echo:
        return []
    texts = [given if isinstance(given, str) else "" for given in body.prompts()]
    return [text for text in texts for _ in range(body.choices)]


async def _whole(
    request: Request, head: Head, answers: Answers, echoes: Sequence[str]
) -> JSONResponse:
    """Wait for all of it, unless the client hangs up."""
    pieces: list[list[Piece]] = [[Piece(text)] for text in echoes] or [[] for _ in answers.running]
    waiting = asyncio.ensure_future(_collect(answers, pieces))
    try:
        while not waiting.done():
            await asyncio.wait([waiting], timeout=LOOK_S)
            if not waiting.done() and await request.is_disconnected():
                raise ApiError(499, "the client has gone")
        await waiting
    finally:
        answers.cancel()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, ApiError):
            await waiting
    whole = [(parts, answers.ends[k]) for k, parts in enumerate(pieces)]
    return JSONResponse(head.whole(whole))


async def _collect(answers: Answers, pieces: list[list[Piece]]) -> None:
    async for index, event in answers.events():
        if isinstance(event, Piece):
            pieces[index].append(event)


async def _stream(head: Head, answers: Answers, tells_usage: bool) -> AsyncIterator[str]:
    """Events as they come; when the client hangs up, the generator is closed and so is the work."""
    try:
        for index in range(len(answers.running)):
            if (opening := head.opening(index)) is not None:
                yield objects.event(opening)
        async for index, event in answers.events():
            if isinstance(event, Ended):
                yield objects.event(head.closing(index, event))
            elif isinstance(event, Piece) and (event.text or event.logprobs):
                yield objects.event(head.chunk(index, event))
        if tells_usage:
            yield objects.event(head.counts(list(answers.ends.values())))
        yield objects.event("[DONE]")
    except ApiError as problem:  # the status line has long been sent
        yield objects.event(api_error(problem).body())
    finally:
        answers.cancel()
