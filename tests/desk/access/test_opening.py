"""A page opens on this machine, beside a key for its owner alone, and closes without a trace."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.desk.access.opening import OpenPage, PageAddress, new_link, opened
from nomoat.desk.pages.frame import PageMap
from nomoat.desk.pages.rendering import render
from nomoat.desk.pages.site import Site

PAGES = PageMap("somewhere", (("First", "/"),))


def site() -> Site:
    made = Site(lambda title, session: PAGES.frame(title, "/", session))
    made.page("/", lambda request, session: render("said", page=PAGES.frame("1", "/", session)))
    return made


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "page.key"


@pytest.fixture
def page(key: Path) -> Iterator[OpenPage]:
    with opened(site().app, PageAddress(), key, str) as found:
        yield found


def test_its_links_open_it_once_each_and_its_key_is_its_owners_alone(
    page: OpenPage, key: Path
) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for link in (page.link, new_link(key)):
        with httpx.Client(trust_env=False, follow_redirects=True) as browser:
            assert browser.get(link).status_code == 200
            assert browser.get(page.url).status_code == 200
        with httpx.Client(trust_env=False, follow_redirects=True) as other:
            assert other.get(link).status_code == 401


def test_a_port_that_is_taken_is_left_to_whoever_has_it(page: OpenPage, tmp_path: Path) -> None:
    taken = int(page.url.rsplit(":", 1)[1].rstrip("/"))
    other = tmp_path / "other.key"
    with opened(site().app, PageAddress(port=taken), other, str) as second:
        assert second.url != page.url
    exact = opened(site().app, PageAddress(port=taken, exact=True), other, str)
    with pytest.raises(NomoatError, match="cannot listen"), exact:
        pass


def test_a_page_that_is_closed_leaves_no_key(key: Path) -> None:
    with opened(site().app, PageAddress(), key, str):
        pass
    assert not key.exists()
    with pytest.raises(NomoatError, match="no page is open"):
        new_link(key)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_a_certificate_a_page_stays_on_this_machine(host: str) -> None:
    with pytest.raises(UsageError, match="needs a certificate"):
        PageAddress(host)
