"""Descent of communities from one another, checked by signatures (docs/protocol.md §6.3)."""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import origin as origins
from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.protocol.origin import Origin
from nomoat.server.community.opened import OpenCommunity


def check_begun(community: OpenCommunity) -> str | None:
    """A line on the version a community began with, None if with an untrained adapter.

    NomoatError if what is kept of it is not what version 0 names.
    """
    origin, first = community.folder.begun_with(), community.versions.get(0).version
    if origin is None:
        if first.note.startswith(origins.BEGUN_WITH):
            raise NomoatError(
                f"{community.folder.origin} is gone; bring a backup back with nomoat restore: "
                f"version 0 was {first.note}"
            )
        return None
    try:
        origins.check_child(origin, first, str(community.folder.origin))
    except RemoteProtocolError as problem:
        raise NomoatError(
            f"{problem.peer}: {problem.reason}; bring a backup back with nomoat restore"
        ) from None
    return f"{origin.note}: signed by {origin.name} ({fingerprint(origin.community)})"


def check_related(community: OpenCommunity, other: Path) -> str:
    """A line on which of two communities grew from the other.

    other: a community's folder, or the origin.rec of one. NomoatError if neither did, or if the
    child names a version that its parent never signed.
    """
    if other.is_file():
        return _child_of(community, _origin(other), str(other))
    theirs, name = OpenCommunity.open(other), community.settings.community.name
    there = theirs.settings.community.name
    for child, parent, who in ((theirs, community, there), (community, theirs, name)):
        origin = child.folder.begun_with()
        if origin is not None and parent.versions.keys.holds(origin.community):
            check_begun(child)
            return _child_of(parent, origin, who)
    raise NomoatError(f"neither {name} nor {there} has grown from the other")


def _child_of(parent: OpenCommunity, origin: Origin, child: str) -> str:
    """A line that says that `origin` is one of the parent's own versions."""
    name, version = parent.settings.community.name, origin.record.version
    own = parent.versions.database.versions(version.number, 1)
    if not parent.versions.keys.holds(origin.community) or origin.record not in own:
        raise NomoatError(f"{child} names a version that {name} has never signed")
    return f"{child} has grown from version {version.number} of {name}"


def _origin(file: Path) -> Origin:
    try:
        return origins.from_file(file.read_bytes(), str(file))
    except RemoteProtocolError as problem:
        raise UsageError(f"{file} is no origin.rec of a community: {problem.reason}") from None
