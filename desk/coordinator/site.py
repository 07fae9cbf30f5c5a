"""The coordinator's site: which page is where, and which order a form gives."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.enrolment import Standing, fingerprint
from nomoat.desk.access.sessions import BrowserSession
from nomoat.desk.coordinator import people, rounds, settings_form, shelf
from nomoat.desk.coordinator.case import case_view
from nomoat.desk.coordinator.health import health
from nomoat.desk.coordinator.round_book import RoundBook
from nomoat.desk.pages.charts import line_chart
from nomoat.desk.pages.frame import PageFrame, PageMap
from nomoat.desk.pages.rendering import render
from nomoat.desk.pages.site import Site
from nomoat.desk.watching.event_log import EventSearch, path_of, search
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.watching import WAITING

PAGES: Final = (
    ("Rounds", "/"),
    ("Volunteers", "/volunteers"),
    ("Invitations", "/invitations"),
    ("Versions", "/versions"),
    ("Settings", "/settings"),
    ("Events", "/events"),
    ("Health", "/machine"),
)
SHOWN_ROUNDS: Final = 50
SHOWN_EVENTS: Final = 300


@dataclass(frozen=True)
class CoordinatorPages:
    """The pages of one community that is up. online: names of the volunteers who are."""

    community: OpenCommunity
    online: Callable[[], Collection[str]]
    book: RoundBook
    fresh: dict[str, people.FreshInvitation] = field(default_factory=dict)  # by form token

    def site(self) -> Site:
        """Return the site."""
        site = Site(lambda title, session: self._frame(title, "", session))
        site.page("/", self._rounds)
        site.page("/round", self._round)
        site.page("/volunteers", self._volunteers)
        site.page("/volunteer", self._case)
        site.page("/invitations", self._invitations)
        site.page("/versions", self._versions)
        site.page("/version", self._version)
        site.page("/version.zip", self._packed)
        site.page("/settings", self._settings)
        site.page("/events", self._events)
        site.page("/machine", self._health)
        site.order("/volunteers", self._order)
        site.order("/invite", self._invite)
        site.order("/revoke", self._revoke)
        site.order("/settings", self._change)
        site.order("/verify", self._verify)
        site.order("/release", self._release)
        site.order("/rollback", self._rollback)
        site.live("/live", self._now)
        return site

    def _frame(self, title: str, path: str, session: BrowserSession, live: str = "") -> PageFrame:
        name = self.community.settings.community.name
        return PageMap(name, PAGES).frame(title, path, session, live)

    def _rounds(self, request: Request, session: BrowserSession) -> str:
        parts = self._now(request, session)
        return render(
            "coordinator_rounds", page=self._frame("Rounds", "/", session, "/live"), parts=parts
        )

    def _now(self, request: Request, session: BrowserSession) -> Mapping[str, str]:
        """The parts of the first page that follow what happens."""
        del request, session
        ended = self.book.rounds()
        view = rounds.present(self.community.folder, time.time())
        now = render(
            "coordinator_now",
            view=view,
            online=sorted(self.online()),
            totals=rounds.totals(ended),
            most=self.community.settings.rounds.max_rounds,
            needed=self.community.settings.rounds.min_volunteers,
            joined=bool(ended or self.community.registrar.database.applicants()),
        )
        past = render(
            "coordinator_past",
            rounds=tuple(reversed(ended))[:SHOWN_ROUNDS],
            count=len(ended),
            losses=line_chart("Held-out loss by round, nats per token", rounds.loss_lines(ended)),
            participation=line_chart(
                "Volunteers by round", rounds.participation_lines(ended), from_zero=True
            ),
            seconds=line_chart(
                "Seconds of each phase by round", rounds.seconds_lines(ended), from_zero=True
            ),
        )
        phases = render("coordinator_phases", view=view, order=(WAITING, *rounds.PHASES))
        return {"now": now, "phases": phases, "past": past}

    def _round(self, request: Request, session: BrowserSession) -> str:
        number = _number(request)
        text = self.community.registrar.database.round_record(number)
        if text is None:
            raise UsageError(f"round {number} has not ended here")
        frame = self._frame(f"Round {number}", "/", session)
        return render("coordinator_round", page=frame, view=rounds.round_view(json.loads(text)))

    def _volunteers(self, request: Request, session: BrowserSession) -> str:
        del request
        rows = people.volunteer_rows(self.community, self.book.taken_part(), self.online())
        frame = self._frame("Volunteers", "/volunteers", session)
        return render("coordinator_volunteers", page=frame, rows=rows)

    def _case(self, request: Request, session: BrowserSession) -> str:
        view = case_view(self.community, request.query_params.get("name", ""))
        return render(
            "coordinator_case",
            page=self._frame(view.name, "/volunteers", session),
            view=view,
            offered=people.OFFERED.get(Standing(view.standing), ()),
            back=f"/volunteer?{urlencode({'name': view.name})}",
        )

    def _order(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        return people.order(self.community, form, int(time.time()))

    def _invitations(self, request: Request, session: BrowserSession) -> str:
        del request
        fresh = self.fresh.pop(session.form_token, None)
        rows = people.invitation_rows(self.community, int(time.time()))
        frame = self._frame("Invitations", "/invitations", session)
        return render(
            "coordinator_invitations",
            page=frame,
            rows=rows,
            fresh=fresh,
            picture="" if fresh is None else _data_url(fresh.picture),
            address=self.community.settings.server.address,
        )

    def _invite(self, form: Mapping[str, str], session: BrowserSession) -> str:
        self.fresh[session.form_token] = people.invite(self.community, form)
        return "The invitation is below; it is shown once."

    def _revoke(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        issued = self.community.registrar.revoke(form.get("identifier", ""))
        return f"Invitation {issued.identifier.hex()[:8]} is revoked."

    def _versions(self, request: Request, session: BrowserSession) -> str:
        del request
        frame = self._frame("Versions", "/versions", session)
        rows = shelf.version_rows(self.community)
        return render("coordinator_versions", page=frame, rows=rows)

    def _version(self, request: Request, session: BrowserSession) -> str:
        number = _number(request)
        view = shelf.version_view(self.community, number)
        frame = self._frame(f"Version {number}", "/versions", session)
        return render("coordinator_version", page=frame, view=view)

    def _packed(self, request: Request, session: BrowserSession) -> Response:
        del session
        number = _number(request)
        data = shelf.packed(self.community, number)
        headers = {"content-disposition": f'attachment; filename="version-{number}.zip"'}
        return Response(data, media_type="application/zip", headers=headers)

    def _verify(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del form, session
        count = self.community.versions.verify()
        return f"{count} versions: chain, signatures and files are whole."

    def _release(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        return shelf.order(self.community, form, int(time.time()))

    def _rollback(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        return shelf.go_back(self.community, form, int(time.time()))

    def _settings(self, request: Request, session: BrowserSession) -> str:
        del request
        frame = self._frame("Settings", "/settings", session)
        view = settings_form.settings_view(self.community.folder)
        file = str(self.community.folder.settings)
        return render("coordinator_settings", page=frame, view=view, file=file)

    def _change(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        changed = settings_form.change(self.community.folder, form)
        if not changed:
            return "Nothing was different; nothing was changed."
        return f"Written: {', '.join(changed)}. The next start of nomoat up goes by it."

    def _events(self, request: Request, session: BrowserSession) -> str:
        query = request.query_params
        wanted = EventSearch(query.get("name", ""), query.get("round", ""), query.get("text", ""))
        found = search(path_of(self.community.folder), wanted, SHOWN_EVENTS)
        frame = self._frame("Events", "/events", session)
        return render(
            "coordinator_events",
            page=frame,
            wanted=wanted,
            events=people.named(self.community.registrar.database, found),
            shown=SHOWN_EVENTS,
            logged=self.community.settings.watch.log,
        )

    def _health(self, request: Request, session: BrowserSession) -> str:
        del request
        frame = self._frame("Health", "/machine", session)
        lines = health(self.community.folder, time.time())
        key = fingerprint(self.community.registrar.keys.founding)
        return render("coordinator_health", page=frame, lines=lines, fingerprint=key)


def _number(request: Request) -> int:
    text = request.query_params.get("number", "")
    if not text.isdecimal() or len(text) > 9:
        raise UsageError("there is no such number")
    return int(text)


def _data_url(svg: str) -> Markup:
    return Markup("data:image/svg+xml;base64,{}").format(base64.b64encode(svg.encode()).decode())


def coordinator_site(community: OpenCommunity, online: Callable[[], Collection[str]]) -> Site:
    """Return the site of a community that is up."""
    return CoordinatorPages(community, online, RoundBook(community.registrar.database)).site()


def refused(folder: str) -> Callable[[str], str]:
    """Return what makes the page for whoever comes without a key."""
    return lambda why: render("stranger", why=why, command=f"nomoat page link {folder}")
