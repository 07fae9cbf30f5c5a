"""PRIVACY.md of a community: what its coordinator holds of whom, filled in from its settings.

A template: its owner completes what stands in brackets. `nomoat init` writes it once.
"""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.secagg.in_words import private, protection
from nomoat.server.community.folder import Folder
from nomoat.server.community.settings import Settings
from nomoat.storage.atomic import replacing

NAME = "PRIVACY.md"


def write(folder: Folder) -> None:
    """Write the note beside community.toml, unless there is one."""
    path = folder.root / NAME
    if not path.exists():
        with replacing(path) as file:
            file.write(text(folder.load()).encode())


def text(settings: Settings) -> str:
    """Return the note."""
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("privacy.md.j2").read_text("utf-8")
    rounds = settings.rounds
    # Markdown, not HTML: nothing is escaped.
    environment = Environment(trim_blocks=True, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - plain text
    return environment.from_string(template).render(
        community=settings.community,
        rounds=rounds,
        hooks=len(settings.watch.hooks) + len(settings.watch.notify),
        protection=protection(rounds.secure, rounds.least_reports),
        not_private=private(
            settings.privacy.epsilon, settings.privacy.delta, settings.privacy.participations
        ),
    )
