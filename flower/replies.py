"""Replies that say that there is none: the codes of errors, and how one is made."""

from __future__ import annotations

from typing import Final

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from nomoat.flower.objects import identify

FAILED: Final[int] = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
"""The volunteer could not answer, or its answer cannot be read."""

UNREACHABLE: Final[int] = ErrorCode.NODE_UNAVAILABLE
"""The volunteer's connection is gone."""

REFUSED: Final = 1000  # above Flower's own
"""What came in the volunteer's name is not its own."""

COORDINATOR_NODE: Final[int] = SUPERLINK_NODE_ID


def error_reply(asked_id: str, node: int, code: int, reason: str | None = None) -> Message:
    """An error in place of a node's reply to the message of that id, for whoever waits for it."""
    asked = Message(RecordDict(), node, "system", group_id="")
    identify(asked, asked_id)
    return Message(Error(code=code, reason=reason), reply_to=asked)


def failure(message: Message, problem: Exception) -> Message:
    """The reply to `message` of an app that raised `problem`: its class, never its text.

    The text of an exception may hold a path or a line of data.
    """
    return Message(Error(FAILED, type(problem).__name__), reply_to=message)
