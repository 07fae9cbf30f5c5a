"""Errors as OpenAI's clients know them: {"error": {message, type, param, code}}."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.inference.requests import ContextExceeded
from nomoat.serving.sources.source import UnknownVoice

INVALID = "invalid_request_error"
SERVER = "server_error"


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        """The object that is sent."""
        kind = SERVER if self.status >= 500 else INVALID
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The response that is sent."""
        return JSONResponse(self.body(), self.status)


def api_error(problem: Exception) -> ApiError:
    """The error that says what went wrong here."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, HTTPException):
        return ApiError(problem.status_code, str(problem.detail))
    if isinstance(problem, NomoatError):
        return _refused(problem)
    return ApiError(500, f"the server failed ({type(problem).__name__})")


def invalid(problem: ValidationError) -> ApiError:
    """The error of a body whose first wrong field is named."""
    first = problem.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return ApiError(400, f"{place}: {first['msg']}".strip(": "), param=place or None)


def _refused(problem: NomoatError) -> ApiError:
    if isinstance(problem, UnknownVoice):
        text = f"The model '{problem.voice}' does not exist: {problem}"
        return ApiError(404, text, "model_not_found", "model")
    if isinstance(problem, ContextExceeded):
        return ApiError(400, str(problem), "context_length_exceeded", "messages")
    return ApiError(400, str(problem))


def install(app: FastAPI) -> None:
    """Answer every error of `app` so."""

    async def told(_: Request, problem: Exception) -> JSONResponse:
        return api_error(problem).response()

    for kind in (ApiError, NomoatError, HTTPException, Exception):
        app.add_exception_handler(kind, told)
