"""Nobody gets past the door without a session, and a page of ours asks nothing of anybody else."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from starlette.testclient import TestClient

from nomoat.desk.access.door import Door, DoorRules
from nomoat.desk.access.one_time_keys import mint
from nomoat.desk.access.sessions import BrowserSession, Sessions
from nomoat.desk.pages.frame import PageMap
from nomoat.desk.pages.rendering import render
from nomoat.desk.pages.site import Site
from nomoat.server.port.rate_limit import Rate

SECRET = b"s" * 32
ORIGIN = "http://127.0.0.1:8444"


class Watched:
    """A site with one page and one order, which is counted."""

    def __init__(self, rules: DoorRules = DoorRules()) -> None:  # noqa: B008
        self.orders: list[Mapping[str, str]] = []
        pages = PageMap("somewhere", (("First", "/"),))
        site = Site(lambda title, session: pages.frame(title, "/", session))
        site.page("/", lambda request, session: render("said", page=self.frame(pages, session)))
        site.order("/order", self.act)
        sessions = Sessions(SECRET, time.time)
        self.door = Door(site.app, sessions, rules, lambda why: f"stranger: {why}")
        self.client = TestClient(self.door, base_url=ORIGIN)
        self.token = ""

    def frame(self, pages: PageMap, session: BrowserSession) -> object:
        self.token = session.form_token
        return pages.frame("First", "/", session)

    def act(self, fields: Mapping[str, str], session: BrowserSession) -> str:
        self.orders.append(fields)
        return "done as you said"

    def enter(self) -> Watched:
        key = mint(SECRET, b"n" * 12, int(time.time()) + 60)
        assert self.client.get(f"/?key={key}").status_code == 200
        return self


def test_a_stranger_sees_no_page_and_gives_no_order() -> None:
    site = Watched()
    assert site.client.get("/").status_code == 401
    assert site.client.post("/order", data={"order": "x"}).status_code == 401
    assert site.client.get("/?key=1.2.3").status_code == 401
    assert site.orders == []


def test_a_key_is_taken_out_of_the_address_and_works_once() -> None:
    site = Watched()
    key = mint(SECRET, b"n" * 12, int(time.time()) + 60)
    first = site.client.get(f"/?key={key}", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert site.client.get("/").status_code == 200
    other = TestClient(site.door, base_url=ORIGIN)
    assert other.get(f"/?key={key}").status_code == 401


def test_an_order_needs_the_token_of_its_session() -> None:
    site = Watched().enter()
    for token in ("", "x", site.token + "x"):
        answer = site.client.post("/order", data={"order": "x", "form_token": token})
        assert "Not done" in answer.text
    assert site.orders == []
    answer = site.client.post("/order", data={"order": "x", "form_token": site.token})
    assert "done as you said" in answer.text
    assert site.orders == [{"order": "x"}]


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
def test_an_order_from_another_page_is_refused_even_with_the_token(
    headers: dict[str, str],
) -> None:
    site = Watched().enter()
    form = {"order": "x", "form_token": site.token}
    assert site.client.post("/order", data=form, headers=headers).status_code == 403
    assert site.orders == []


def test_a_name_that_is_not_this_machines_leads_nowhere() -> None:
    site = Watched().enter()
    answer = site.client.get("/", headers={"host": "rebound.example:8444"})
    assert answer.status_code == 421


def test_every_answer_forbids_what_is_not_ours() -> None:
    site = Watched()
    for path in ("/", "/static/desk.css", "/nowhere", "/health"):
        headers = site.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"


def test_wrong_keys_are_counted_and_then_no_key_is_looked_at() -> None:
    site = Watched(DoorRules(stranger=Rate(1e-9, 3)))
    codes = [site.client.get("/?key=wrong").status_code for _ in range(5)]
    assert codes == [401, 401, 401, 429, 429]
    key = mint(SECRET, b"n" * 12, int(time.time()) + 60)
    assert site.client.get(f"/?key={key}").status_code == 429


def test_a_flood_from_one_address_is_slowed() -> None:
    site = Watched(DoorRules(address=Rate(1e-9, 4)))
    codes = [site.client.get("/health").status_code for _ in range(6)]
    assert codes == [200] * 4 + [429] * 2


def test_where_an_order_leads_back_to_is_a_page_of_ours() -> None:
    site = Watched().enter()
    for back in ("https://evil.example/", "//evil.example", "/\\evil.example", "/a\r\nx: y"):
        form = {"form_token": site.token, "back": back}
        answer = site.client.post("/order", data=form, follow_redirects=False)
        assert answer.headers["location"] == "/"


def test_a_form_that_never_ends_is_not_read_to_its_end() -> None:
    site = Watched().enter()
    form = {"form_token": site.token, "order": "x" * (70 << 10)}
    assert "too long" in site.client.post("/order", data=form).text
    assert site.orders == []
