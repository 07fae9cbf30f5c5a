"""Ports of the message loop: who answers messages, and who is told how the line is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from flwr.app import Message

from nomoat.client.round.sealed_app import App

Record: TypeAlias = Callable[[Message, Message], None]


class Listener(Protocol):
    """Told how the line is doing (a status file, a terminal)."""

    def connected(self, node_id: int) -> None:
        """The coordinator knows us as this node."""

    def lost(self, reason: str, retry_s: float) -> None:
        """The line broke; it is tried again after `retry_s`."""

    def working(self, kind: str) -> None:
        """A message of this kind is being answered."""

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """It was answered; `late` if the coordinator had moved on."""

    def unsent(self, reason: str, retry_s: float) -> None:
        """An answer waits for the line, which is broken; it is tried again after `retry_s`."""

    def withheld(self, kind: str, reason: str) -> None:
        """An answer was not sent: it could not be logged, say."""


def unrecorded(_request: Message, _reply: Message) -> None:
    """Keep no log of what leaves."""


def unheeded() -> None:
    """Let what is being done be done to its end."""


@dataclass(frozen=True)
class Answering:
    """The answer to a message, and what goes with it.

    record: called with request and reply before the reply leaves; what it raises NomoatError for
    does not leave, and the coordinator is told that there is no answer. overtaken: called when
    something new is asked while something else is being done, whose answer is too late.
    """

    app: App
    record: Record = unrecorded
    overtaken: Callable[[], None] = unheeded
