"""A static page of a community for everybody: what it makes, its versions, its rules, how to join.

No volunteer's name is in it, no script, and nothing of another host; two files in a folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.secagg.in_words import protection
from nomoat.desk.coordinator import rounds, shelf
from nomoat.desk.coordinator.round_book import RoundBook
from nomoat.desk.pages.charts import ChartLine, ChartPoint, line_chart
from nomoat.desk.pages.rendering import HERE, render
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.release.releasing import newest_released
from nomoat.storage.drafts import filling

PAGE = "index.html"


@dataclass(frozen=True)
class PublicView:
    """All that everybody may know. protection: of updates, in words; given_out: newest release."""

    name: str
    about: str
    base: str
    base_license: str
    base_hash: str
    method: str
    rank: int
    protection: str
    admission: str
    address: str
    fingerprint: str
    members: int
    rounds: int
    versions: tuple[shelf.VersionRow, ...]
    given_out: int


def public_view(community: OpenCommunity) -> PublicView:
    """Look at a community's folder."""
    settings, registrar = community.settings, community.registrar
    members = registrar.roster().approved()
    taken = settings.rounds
    return PublicView(
        settings.community.name,
        settings.community.about,
        settings.base.model,
        settings.base.license,
        settings.base.hash,
        settings.method.name,
        settings.adapter.rank,
        protection(taken.secure, taken.least_reports),
        settings.community.admission.value,
        settings.server.address,
        fingerprint(registrar.keys.founding),
        len(members),
        rounds.totals(RoundBook(registrar.database).rounds()).committed,
        shelf.version_rows(community),
        newest_released(community, int(time.time())).version.number,
    )


def export(community: OpenCommunity, to: Path) -> Path:
    """Write the page into a new folder, whole or not at all; UsageError if there is one already."""
    ended = RoundBook(community.registrar.database).rounds()
    chart = line_chart("Held-out loss by round, nats per token", _without_spread(ended))
    html = render("public", view=public_view(community), chart=chart)
    with filling(to, PAGE) as draft:
        (draft / "desk.css").write_bytes((HERE / "desk.css").read_bytes())
        (draft / PAGE).write_text(html, "utf-8")
    return to / PAGE


def _without_spread(ended: tuple[rounds.RoundView, ...]) -> tuple[ChartLine, ...]:
    """The lines without bars: the best and worst volunteer's loss are theirs."""
    return tuple(
        ChartLine(
            line.name.partition(",")[0],
            tuple(ChartPoint(point.x, point.y) for point in line.points),
            line.kind,
        )
        for line in rounds.loss_lines(ended)
    )
