"""The frame of every page: its title, its neighbours, what is to be said on it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nomoat.desk.access.sessions import BrowserSession


@dataclass(frozen=True)
class PageLink:
    """An entry of the navigation; here: of the page that is shown."""

    name: str
    href: str
    here: bool


@dataclass(frozen=True)
class PageFrame:
    """All that the base template needs. where: whose pages these are. live: the stream, or none."""

    title: str
    where: str
    links: tuple[PageLink, ...]
    said: tuple[str, ...]
    form_token: str
    live: str


@dataclass(frozen=True)
class PageMap:
    """The pages of one site, in order: (name, path)."""

    where: str
    entries: Sequence[tuple[str, str]]

    def frame(self, title: str, path: str, session: BrowserSession, live: str = "") -> PageFrame:
        """Return the frame of the page at `path`; what the session had to say is then said."""
        links = tuple(PageLink(name, href, href == path) for name, href in self.entries)
        said = tuple(session.take_said())
        return PageFrame(title, self.where, links, said, session.form_token, live)
