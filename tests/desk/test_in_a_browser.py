"""In a real browser pages fit, work with keys alone, follow what happens, and ask nobody else.

Skipped where no Chromium is installed, or the playwright package is not (nomoat[browser]).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import community_info
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import identity
from nomoat.client.machine import owner_orders
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.status import alone
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.desk.access.opening import PageAddress, new_link, opened
from nomoat.desk.coordinator.site import PAGES as COORDINATOR_PAGES
from nomoat.desk.coordinator.site import coordinator_site
from nomoat.desk.volunteer.site import PAGES as VOLUNTEER_PAGES
from nomoat.desk.volunteer.site import refused, volunteer_site
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.release.rolling_back import waiting
from round_records import RECORDS, renamed, write_rounds

playwright = pytest.importorskip("playwright.sync_api", reason="needs nomoat[browser]")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

# Elements a person can use that have no name to be called by.
NAMELESS = """() => [...document.querySelectorAll('input:not([type=hidden]),select,button,a')]
  .filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map(e => e.outerHTML)"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ROUNDS = (("Round", "/round?number=1"), ("Round", "/round?number=3"))
HOSTILE = "<script>alert(1)</script><img src=//example.org onerror=alert(1)>\u202e" + "x" * 134
KEY = SigningKey(b"\7" * 32)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Tab:
    """A page of the browser, and what it complained about and asked for."""

    def __init__(self, chromium: Any, link: str) -> None:
        self.address = link.partition("?")[0].rstrip("/")
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page = chromium.new_page()
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("dialog", lambda asked: self.complaints.append(asked.message))
        self.page.on("pageerror", lambda problem: self.complaints.append(str(problem)))
        self.page.on("request", lambda asked: self.hosts.add(asked.url.split("/")[2]))
        self.page.goto(link)

    def look(self, path: str, scheme: str) -> None:
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(self.address + path, wait_until="domcontentloaded")
        for width in (1280, 390):
            self.page.set_viewport_size({"width": width, "height": 900})
            assert self.page.evaluate(TOO_WIDE) <= 0, f"{path} is too wide at {width}"
        assert self.page.evaluate(NAMELESS) == [], path


def every_page(tab: Tab, pages: Any) -> None:
    for number, (_, path) in enumerate(pages):
        tab.look(path, ("light", "dark")[number % 2])
    assert tab.complaints == []
    assert tab.hosts == {tab.address.split("/")[2]}
    tab.page.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    identity(made.identity, lambda count: b"\1" * count)
    folder = made.folder(KEY.public)
    folder.save_info(community_info(name=HOSTILE[:80], public=KEY.public))
    data = tmp_path / "rows.jsonl"
    folder.save(VolunteerSettings(address="localhost:1", name="ada", data=data, base="pocket"))
    return made


@pytest.fixture
def link(home: Home) -> Iterator[Callable[[], str]]:
    """New links to the volunteer's page."""
    key = home.root / "page.key"
    with opened(volunteer_site(home).app, PageAddress(), key, refused) as page:
        yield lambda: new_link(key) if page else ""


def test_a_volunteers_pages_fit_and_ask_nobody_else(chromium: Any, link: Callable) -> None:
    every_page(Tab(chromium, link()), VOLUNTEER_PAGES)


def test_the_coordinators_pages_fit_and_ask_nobody_else(
    chromium: Any, community: OpenCommunity, tmp_path: Path
) -> None:
    hostile = replace(renamed(RECORDS[1], HOSTILE), round=3)
    write_rounds(community, *RECORDS, hostile)
    site = coordinator_site(community, lambda: {"ada": 1})
    with opened(site.app, PageAddress(), tmp_path / "page.key", refused) as page:
        every_page(Tab(chromium, page.link), (*COORDINATOR_PAGES, *ROUNDS))
        tab = Tab(chromium, new_link(tmp_path / "page.key"))
        tab.page.on("dialog", lambda asked: asked.accept())
        tab.page.goto(f"{tab.address}/version?number=0")
        tab.page.get_by_placeholder("reason").fill("it was better")
        tab.page.get_by_role("button", name="Go back to version 0").click()
        tab.page.get_by_role("status").filter(has_text="goes back to version 0").wait_for(
            timeout=20_000
        )
        assert tab.complaints == [
            "Go back to version 0? Work since then is left out, and the round under way is not "
            "taken."
        ]
        tab.page.close()
    found = waiting(community)
    assert found is not None
    assert (found.to, found.reason) == (0, "it was better")


def test_a_page_follows_what_happens_and_is_paused_with_keys_alone(
    chromium: Any, link: Callable, home: Home
) -> None:
    folder: CommunityFolder = home.joined()[0]
    tab = Tab(chromium, link())
    page = tab.page
    with alone(folder):
        StatusWriter(folder).working("train.local")
        page.get_by_text("Working: training the adapter on your rows.").wait_for(timeout=20_000)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.value") == "pause":
                break
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Resume").wait_for(timeout=20_000)
    assert owner_orders.read(folder.root).paused
    page.close()
