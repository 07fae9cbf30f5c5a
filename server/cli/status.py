"""The words of `nomoat status DIR`: a community as its coordinator's operator asks for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nomoat.server.cli.options import opened, print_json, print_table

if TYPE_CHECKING:
    from nomoat.server.overview import CommunityOverview, MemberRow


def tell_overview(folder: Path, as_json: bool) -> None:
    """Say if a community is up, what its round waits for, and who is there."""
    import contextlib

    from nomoat.server.overview import overview

    community = opened(folder)
    with contextlib.closing(community.registrar.database):
        found = overview(community)
    if as_json:
        print_json(found.as_json())
        return
    for line in overview_lines(found):
        typer.echo(line)
    if found.members:
        columns = ("name", "standing", "there", "last seen", "rounds", "last round", "reason")
        print_table(columns, [_row(member) for member in found.members])


def overview_lines(found: CommunityOverview) -> list[str]:
    """Return all that is said above the table of volunteers, one fact a line."""
    lines = [_doing(found)]
    if (missing := found.missing()) is not None:
        lines.append(missing)
    loss = "" if found.loss is None else f", held-out loss {found.loss:.4f}"
    note = f" ({found.note})" if found.note else ""
    lines.append(f"version {found.version} of round {found.version_round}{loss}{note}")
    lines.append(f"the adapter: nomoat adapter export NEW_FOLDER --dir {found.folder}")
    if not found.members:
        lines.append(f"nobody has joined yet: nomoat invite {found.folder}")
    return lines


def _doing(found: CommunityOverview) -> str:
    if found.process is None:
        return f"{found.name} is not up: nomoat up {found.folder}"
    counts = f" ({found.answered} of {found.asked})" if found.asked else ""
    where = f"{found.name} is up on {found.address}, process {found.process}"
    return f"{where}; round {found.round} of {found.rounds}: {found.phase}{counts}"


def _row(member: MemberRow) -> tuple[str, ...]:
    seen = "never" if member.seen is None else _when(member.seen)
    last = "" if member.last is None else str(member.last)
    there = member.presence if member.standing == "approved" else ""
    return (member.name, member.standing, there, seen, str(member.rounds), last, member.reason)


def _when(at: int) -> str:
    local, today = time.localtime(at), time.localtime()
    same = local[:3] == today[:3]
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", local)
