"""Deciding who may take part, without I/O: states of a volunteer and what moves it between them.

A volunteer that waits for approval is not in the roster; from its join on, the roster's own table
(aggregation/protocol/roster.py) is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nomoat.aggregation.errors import Refused, UsageError
from nomoat.aggregation.protocol.enrolment import NAME, NAME_RULE, Binding, Standing
from nomoat.aggregation.protocol.roster import STANDINGS, Event
from nomoat.aggregation.secagg.parameters import Policy


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
class AgreedTerms:
    """The terms of a session that a volunteer holds its community to from its joining on.

    least: the fewest participants of a session it takes part in.
    """

    secure: bool
    least: int

    @classmethod
    def offered(cls, secure: bool, participants: int, allow_weak: bool) -> AgreedTerms:
        """The terms agreed to by joining a community that offers this."""
        return cls(secure, Policy(participants, allow_weak).least)

    def refuse(self, now: AgreedTerms) -> bool:
        """Return True if whoever agreed to these refuses every round of a community with those."""
        return (self.secure and not now.secure) or (now.secure and now.least < self.least)


@dataclass(frozen=True, slots=True)
class Holders:
    """The applicants that already hold the name, the identity or the node key asked for."""

    by_name: Applicant | None
    by_identity: Applicant | None
    by_node_key: Applicant | None


def check_name(name: str) -> str:
    """Return a name that is safe in a file, a log and a table; UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(f"name {name!r}: {NAME_RULE}")
    return name


def known_already(known: Holders, binding: Binding) -> Applicant | None:
    """The applicant this enrolment repeats, None if it is new; Refused if it takes what is taken.

    Repeating an enrolment is how a volunteer asks where it stands; it spends no invitation. Who
    left, or waits for approval, may come with a new node key: that of another machine, say.
    """
    same = known.by_identity
    if same is not None and same.standing is Standing.BANNED:
        return same  # whatever its name and its machine
    if same is not None:
        _check_same(same, known, binding)
        return same
    if known.by_name is not None:
        raise Refused(f"the name {binding.name} is taken; choose another with --as")
    if known.by_node_key is not None:
        raise Refused("this node key belongs to another volunteer")
    return None


def _check_same(same: Applicant, known: Holders, binding: Binding) -> None:
    """Refused if somebody known comes under another name, or with a node key it may not have."""
    name = same.binding.name
    may_return = same.standing in {Standing.LEFT, Standing.PENDING}
    if binding.name != name and may_return:
        raise Refused(f"this identity is known here as {name}; join with --as {name}")
    if known.by_node_key not in {None, same}:
        raise Refused("this node key belongs to another volunteer")
    if (name, same.binding.node_key) != (binding.name, binding.node_key) and not may_return:
        raise Refused(
            f"this identity is already enrolled, as {name}; to come from another machine, leave on "
            "that one first, or ask the coordinator to remove it"
        )


def returns(found: Applicant, binding: Binding) -> bool:
    """Return True if this enrolment, with a good invitation, begins anew what `found` began."""
    if found.standing is Standing.PENDING:
        return found.binding.node_key != binding.node_key
    return found.standing is Standing.LEFT


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
    if (standing, wanted) == (Standing.LEFT, Event.RELEASE):  # its machine's key is gone
        raise UsageError("it left; send it a new invitation, with which it comes back")
    if (standing, wanted) not in STANDINGS:
        raise UsageError(f"it is {standing.value}: {wanted.value} changes nothing")
    return wanted
