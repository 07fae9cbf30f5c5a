"""Every error nomoat raises on purpose: one line for a person, and its exit code."""

from __future__ import annotations

from typing import ClassVar

from nomoat.aggregation.plain_text import one_line


class NomoatError(Exception):
    """Something a person can act on: the message says what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message on one line; what a peer has said in it draws on nothing."""
        return one_line(super().__str__())


class UsageError(NomoatError):
    """An option or setting cannot be what was asked for."""

    exit_code = 2


class NotJoined(NomoatError):
    """This machine has not joined the community that was named."""

    exit_code = 3


class Unreachable(NomoatError):
    """The coordinator does not answer."""

    exit_code = 4


class Refused(NomoatError):
    """The coordinator turned this volunteer away."""

    exit_code = 5


class Incompatible(NomoatError):
    """The two sides speak different protocol versions; the message says which must upgrade."""

    exit_code = 6


class DoesNotFit(NomoatError):
    """The model does not fit this machine; the message says what would."""

    exit_code = 7


class BadData(NomoatError):
    """A data file cannot be used; the message names file and line."""

    exit_code = 8


class Diverged(NomoatError):
    """An adapter's loss is not a finite number."""


class LocalProtocolError(NomoatError):
    """Our own side broke the protocol: a bug here, or a caller who did."""


class RemoteProtocolError(NomoatError):
    """A peer broke the protocol. Nothing it sent is used; `section` is of docs/protocol.md."""

    def __init__(self, peer: str, section: str, reason: str) -> None:
        super().__init__(f"{peer}: {reason} (protocol {section})")
        self.peer = peer
        self.section = section
        self.reason = one_line(reason)
