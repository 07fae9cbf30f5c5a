"""The volunteer's site: which page is where, and which order a form gives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request

from nomoat import __version__
from nomoat.aggregation.errors import NotJoined
from nomoat.client.home import CommunityFolder, Home
from nomoat.desk.access.sessions import BrowserSession
from nomoat.desk.pages.frame import PageFrame, PageMap
from nomoat.desk.pages.rendering import render
from nomoat.desk.pages.site import Site
from nomoat.desk.volunteer import owner_commands
from nomoat.desk.volunteer.ledger import LedgerFilter, ledger
from nomoat.desk.volunteer.limits_form import limits_view, save, wanted
from nomoat.desk.volunteer.log_lines import last_lines
from nomoat.desk.volunteer.model import model_view
from nomoat.desk.volunteer.overview import CommunityLink, overview
from nomoat.desk.volunteer.rows import data_view

PAGES: Final = (
    ("Overview", "/"),
    ("Sent", "/sent"),
    ("Data", "/data"),
    ("Limits", "/limits"),
    ("Model", "/model"),
    ("Log", "/log"),
)
COMMAND: Final = "nomoat page link"


def volunteer_site(home: Home) -> Site:
    """Return the site of all communities that this machine has joined."""
    return _VolunteerPages(home).site()


def refused(why: str) -> str:
    """Return the page for whoever comes without a key."""
    return render("stranger", why=why, command=COMMAND)


class _VolunteerPages:
    """The pages of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def site(self) -> Site:
        site = Site(lambda title, session: self._map("").frame(title, "", session))
        site.page("/", self._overview)
        site.page("/sent", self._sent)
        site.page("/data", self._data)
        site.page("/limits", self._limits)
        site.page("/model", self._model)
        site.page("/log", self._log)
        site.order("/order", self._order)
        site.order("/limits", self._save_limits)
        site.live("/live", self._now)
        return site

    def _folder(self, chosen: str) -> CommunityFolder:
        """The community of this id, or the first of those joined."""
        folders = self._home.joined()
        found = [folder for folder in folders if folder.root.name == chosen] or folders
        if not found:
            raise NotJoined("no community was joined here; join one with: nomoat join LINK --data")
        return found[0]

    def _chosen(self, request: Request) -> CommunityFolder:
        return self._folder(request.query_params.get("community", ""))

    def _map(self, community: str) -> PageMap:
        suffix = f"?{urlencode({'community': community})}" if community else ""
        entries = [(name, path + suffix) for name, path in PAGES]
        return PageMap(f"volunteer · nomoat {__version__}", entries)

    def _frame(
        self, title: str, path: str, folder: CommunityFolder, session: BrowserSession
    ) -> PageFrame:
        pages = self._map(folder.root.name if len(self._home.joined()) > 1 else "")
        here = next(href for _, href in pages.entries if href.partition("?")[0] == path)
        live = f"/live?{urlencode({'community': folder.root.name})}" if path == "/" else ""
        return pages.frame(title, here, session, live)

    def _communities(self, chosen: CommunityFolder) -> tuple[CommunityLink, ...]:
        return tuple(
            CommunityLink(folder.root.name, folder.name(), folder == chosen)
            for folder in self._home.joined()
        )

    def _overview(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        frame = self._frame(folder.name(), "/", folder, session)
        parts = self._now(request, session)
        communities = self._communities(folder)
        return render(
            "volunteer_overview", page=frame, parts=parts, communities=communities, path="/"
        )

    def _now(self, request: Request, session: BrowserSession) -> Mapping[str, str]:
        """The part of the first page that follows what happens."""
        folder = self._chosen(request)
        view = overview(folder, datetime.now().astimezone())
        html = render("volunteer_now", view=view, form_token=session.form_token)
        return {"now": html}

    def _sent(self, request: Request, session: BrowserSession) -> str:
        folder, query = self._chosen(request), request.query_params
        sought = LedgerFilter(query.get("message", ""), query.get("round", ""))
        return self._plain(
            "volunteer_sent", "What left this machine", "/sent", folder, session,
            view=ledger(self._home, folder, sought), community=folder.root.name,
        )  # fmt: skip

    def _data(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        view = data_view(folder)
        return self._plain("volunteer_data", "Your data", "/data", folder, session, view=view)

    def _limits(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        return self._plain(
            "volunteer_limits", "What training may use", "/limits", folder, session,
            view=limits_view(folder), community=folder.root.name, file=str(folder.settings),
        )  # fmt: skip

    def _model(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        view = model_view(folder)
        return self._plain("volunteer_model", "The adapter", "/model", folder, session, view=view)

    def _log(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        lines = last_lines(folder)
        return self._plain("volunteer_log", "Log", "/log", folder, session, lines=lines)

    def _plain(
        self,
        template: str,
        title: str,
        path: str,
        folder: CommunityFolder,
        session: BrowserSession,
        **values: object,
    ) -> str:
        frame = self._frame(title, path, folder, session)
        communities = self._communities(folder)
        return render(template, page=frame, communities=communities, path=path, **values)

    def _order(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        return owner_commands.give(self._folder(form.get("community", "")), form.get("order", ""))

    def _save_limits(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        folder = self._folder(form.get("community", ""))
        save(folder, wanted(form, folder.load().machine))
        return "The limits are written; a running nomoat follows them within ten seconds."
