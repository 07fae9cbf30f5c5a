"""Deciding who may take part, without I/O: states of a volunteer and what moves it between them.

A volunteer that waits for approval is not in the roster; from its join on, the roster's own table
(aggregation/protocol/roster.py) is the only one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nomoat.aggregation.errors import Refused, UsageError
from nomoat.aggregation.protocol.enrolment import Binding, Standing
from nomoat.aggregation.protocol.roster import STANDINGS, Event

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,38}[a-z0-9]|[a-z0-9]")


class Admission(StrEnum):
    """The way to be admitted: an invitation is enough, or each volunteer is approved, too."""

    OPEN = "open"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Applicant:
    """An enrolled volunteer as the database knows it."""

    binding: Binding
    standing: Standing
    reason: str


@dataclass(frozen=True, slots=True)
class Holders:
    """The applicants that already hold the name, the identity or the node key asked for."""

    by_name: Applicant | None
    by_identity: Applicant | None
    by_node_key: Applicant | None


def check_name(name: str) -> str:
    """Return a name that is safe in a file, a log and a table; UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r}: 1 to 40 of a-z 0-9 . _ -, starting and ending with a-z 0-9"
        )
    return name


def known_already(known: Holders, binding: Binding) -> Applicant | None:
    """The applicant this enrolment repeats, None if it is new; Refused if it takes what is taken.

    Repeating an enrolment is how a volunteer asks where it stands; it spends no invitation.
    """
    same = known.by_identity
    if same is not None:
        if (same.binding.name, same.binding.node_key) != (binding.name, binding.node_key):
            raise Refused(f"this identity is already enrolled, as {same.binding.name}")
        return same
    if known.by_name is not None:
        raise Refused(f"the name {binding.name} is taken; choose another with --as")
    if known.by_node_key is not None:
        raise Refused("this node key belongs to another volunteer")
    return None


def admit(admission: Admission) -> Standing:
    """The standing of a new volunteer with a good invitation."""
    return Standing.APPROVED if admission is Admission.OPEN else Standing.PENDING


def event_for(standing: Standing, wanted: Event) -> Event:
    """The roster event that an order means for somebody standing there; UsageError if none.

    `release` of a pending volunteer is its join.
    """
    if standing is Standing.PENDING:
        if wanted in (Event.RELEASE, Event.JOIN):
            return Event.JOIN
        raise UsageError(f"a pending volunteer cannot be given a {wanted.value}; approve it first")
    if (standing, wanted) not in STANDINGS:
        raise UsageError(f"it is {standing.value}: {wanted.value} changes nothing")
    return wanted
