"""The volunteer's site: which page is where, and which order a form gives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request

from nomoat import __version__
from nomoat.aggregation.errors import NotJoined, UsageError
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.settings import want_notices
from nomoat.client.volunteer.telling import desktop_notices
from nomoat.desk.access.sessions import BrowserSession
from nomoat.desk.pages.frame import PageFrame, PageMap
from nomoat.desk.pages.rendering import render
from nomoat.desk.pages.site import Site
from nomoat.desk.volunteer import own_case, owner_commands
from nomoat.desk.volunteer.chat_box import ChatBox, Start, speaking, works_on_a_round
from nomoat.desk.volunteer.ledger import LedgerFilter, ledger
from nomoat.desk.volunteer.limits_form import limits_view, save, wanted
from nomoat.desk.volunteer.log_lines import last_lines
from nomoat.desk.volunteer.model import loss_chart, model_view
from nomoat.desk.volunteer.overview import CommunityLink, overview
from nomoat.desk.volunteer.rows import data_view
from nomoat.desk.volunteer.week_picture import week_picture
from nomoat.serving.sources.membership import JoinedCommunity

PAGES: Final = (
    ("Overview", "/"),
    ("Sent", "/sent"),
    ("Data", "/data"),
    ("Limits", "/limits"),
    ("Model", "/model"),
    ("Chat", "/chat"),
    ("Log", "/log"),
)
LIVE: Final = {"/": "/live", "/chat": "/chat-live", "/log": "/log-live"}
COMMAND: Final = "nomoat page link"


def volunteer_site(home: Home, start: Start = speaking) -> Site:
    """Return the site of all communities that this machine has joined. start: of its chats."""
    return _VolunteerPages(home, start).site()


def refused(why: str) -> str:
    """Return the page for whoever comes without a key."""
    return render("stranger", why=why, command=COMMAND)


class _VolunteerPages:
    """The pages of one home."""

    def __init__(self, home: Home, start: Start) -> None:
        self._home, self._start = home, start
        self._chats: dict[str, ChatBox] = {}

    def site(self) -> Site:
        site = Site(lambda title, session: self._map("").frame(title, "", session))
        site.page("/", self._overview)
        site.page("/sent", self._sent)
        site.page("/data", self._data)
        site.page("/limits", self._limits)
        site.page("/model", self._model)
        site.page("/log", self._log)
        site.page("/chat", self._chat)
        site.order("/order", self._order)
        site.order("/chat", self._talk)
        site.order("/limits", self._save_limits)
        site.order("/notices", self._want_notices)
        site.live("/live", self._now)
        site.live("/chat-live", self._said)
        site.live("/log-live", self._lines)
        site.order("/case", self._answer)
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

    def _map(self, community: str, name: str = "") -> PageMap:
        suffix = f"?{urlencode({'community': community})}" if community else ""
        entries = [(name, path + suffix) for name, path in PAGES]
        where = f"{name} · on this machine" if name else f"nomoat {__version__}"
        return PageMap(where, entries)

    def _frame(
        self, title: str, path: str, folder: CommunityFolder, session: BrowserSession
    ) -> PageFrame:
        several = len(self._home.joined()) > 1
        pages = self._map(folder.root.name if several else "", folder.name())
        here = next(href for _, href in pages.entries if href.partition("?")[0] == path)
        live = f"{LIVE[path]}?{urlencode({'community': folder.root.name})}" if path in LIVE else ""
        return pages.frame(title, here, session, live)

    def _communities(self, chosen: CommunityFolder) -> tuple[CommunityLink, ...]:
        return tuple(
            CommunityLink(folder.root.name, folder.name(), folder == chosen)
            for folder in self._home.joined()
        )

    def _overview(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        frame = self._frame("Overview", "/", folder, session)
        parts = self._now(request, session)
        communities = self._communities(folder)
        return render(
            "volunteer_overview",
            page=frame,
            parts=parts,
            communities=communities,
            path="/",
            view=overview(folder, datetime.now().astimezone()),
        )

    def _now(self, request: Request, session: BrowserSession) -> Mapping[str, str]:
        """The parts of the first page that follow what happens."""
        folder = self._chosen(request)
        view = overview(folder, datetime.now().astimezone())
        mine = {"view": view, "form_token": session.form_token}
        return {
            "state": render("volunteer_state", **mine),
            "case": render("volunteer_case", **mine),
            "progress": render("volunteer_progress", view=view),
        }

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
            notices=folder.load().desktop_notices, view=limits_view(folder),
            picture=week_picture(folder.load().machine),
            community=folder.root.name, file=str(folder.settings),
        )  # fmt: skip

    def _model(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        view = model_view(folder)
        return self._plain(
            "volunteer_model", "The adapter", "/model", folder, session,
            view=view, chart=loss_chart(view.past),
        )  # fmt: skip

    def _chat(self, request: Request, session: BrowserSession) -> str:
        folder = self._chosen(request)
        voices = [name for name in JoinedCommunity(folder).voices() if "@" not in name]
        return self._plain(
            "volunteer_chat", "Talk to it", "/chat", folder, session,
            part=self._said(request, session)["chat"], voices=voices, community=folder.root.name,
        )  # fmt: skip

    def _said(self, request: Request, session: BrowserSession) -> Mapping[str, str]:
        """The conversation, which the page follows."""
        del session
        view = self._box(self._chosen(request)).view()
        return {"chat": render("volunteer_chat_now", view=view)}

    def _box(self, folder: CommunityFolder) -> ChatBox:
        name = folder.root.name
        if name not in self._chats:
            made = ChatBox(folder, lambda: works_on_a_round(self._home), self._start)
            self._chats.setdefault(name, made)
        return self._chats[name]

    def _log(self, request: Request, session: BrowserSession) -> str:
        folder, part = self._chosen(request), self._lines(request, session)["log"]
        return self._plain("volunteer_log", "Log", "/log", folder, session, part=part)

    def _lines(self, request: Request, session: BrowserSession) -> Mapping[str, str]:
        """The end of the log, which the page follows."""
        del session
        return {"log": render("volunteer_log_now", lines=last_lines(self._chosen(request)))}

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

    def _answer(self, form: Mapping[str, str], session: BrowserSession) -> str:
        """Recompute what this volunteer is held for, or answer it."""
        del session
        return own_case.order(self._home, self._folder(form.get("community", "")), form)

    def _save_limits(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        folder = self._folder(form.get("community", ""))
        save(folder, wanted(form, folder.load().machine))
        return "The limits are written; a running nomoat follows them within ten seconds."

    def _want_notices(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        wanted = form.get("notices") == "on"
        if wanted and not desktop_notices.installed():
            raise UsageError(desktop_notices.WANTED)
        want_notices(self._folder(form.get("community", "")).settings, wanted)
        return f"Notices on the desktop are {'on' if wanted else 'off'} from the next start on."

    def _talk(self, form: Mapping[str, str], session: BrowserSession) -> str:
        del session
        folder = self._folder(form.get("community", ""))
        box, order = self._box(folder), form.get("order", "")
        if order == "stop":
            box.stop()
        elif order == "new":
            box.clear()
        elif order == "ask":
            for other in self._chats.values():
                if other is not box:  # one model at a time
                    other.close()
            box.ask(form.get("text", ""), form.get("voice", ""))
        else:
            raise UsageError("there is no such order")
        return ""
