"""The way to a coordinator leads through the proxy that is named, or past it."""

from __future__ import annotations

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.client.connection.proxies import Proxy, proxy_for

NAMES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://proxy.example", Proxy("proxy.example", 80)),
        ("http://ada:p%40ss@[fd00::1]:8080/", Proxy("fd00::1", 8080, "ada:p@ss")),
    ],
)
def test_a_proxy_is_read_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, text: str, proxy: Proxy
) -> None:
    monkeypatch.setenv("https_proxy", text)
    assert proxy_for("coordinator.example", 443) == proxy


def test_all_proxy_counts_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://any:1")
    assert proxy_for("c.example", 443) == Proxy("any", 1)
    monkeypatch.setenv("HTTPS_PROXY", "http://this:2")
    assert proxy_for("c.example", 443) == Proxy("this", 2)


def test_a_proxy_for_http_alone_is_none_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://other:1")
    assert proxy_for("c.example", 443) is None


@pytest.mark.parametrize(
    ("excepted", "host"),
    [
        ("c.example", "c.example"),
        ("example", "c.example"),
        (".example", "c.example"),
        ("*", "c.example"),
        ("c.example:443", "c.example"),
        ("other, 10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::/8", "fd00::7"),
        ("[fd00::7]", "fd00::7"),
    ],
)
def test_no_proxy_excepts_hosts_suffixes_and_networks(
    monkeypatch: pytest.MonkeyPatch, excepted: str, host: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert proxy_for(host, 443) is None
    assert proxy_for("elsewhere.net", 443) == (None if excepted == "*" else Proxy("proxy", 1))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.3.2.1", "::1"])
def test_this_machine_is_behind_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert proxy_for(host, 443) is None


@pytest.mark.parametrize(
    "text",
    [
        "socks5h://127.0.0.1:9050",
        "socks5://127.0.0.1:9050",
        "https://proxy:443",
        "http://[::1",
        "http://p:99999",
        "://",
    ],
)
def test_what_is_no_http_proxy_is_refused_and_never_passed_by(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", text.replace("127.0.0.1", "user:secret@127.0.0.1"))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"NO_PROXY=c\.example") as refused:
            proxy_for("c.example", 443)
        assert "secret" not in str(refused.value)
    monkeypatch.setenv("NO_PROXY", "c.example")
    assert proxy_for("c.example", 443) is None


def test_a_proxys_password_is_shown_nowhere() -> None:
    proxy = Proxy("p", 1, "ada:secret")
    assert "secret" not in repr(proxy)
    assert proxy.headers == {"Proxy-Authorization": "Basic YWRhOnNlY3JldA=="}
