from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from nomoat.client.data.secrets_scan import Allowlist, look, scan

# Assembled, so that no scanner takes this file for a leak.
TOKENS = {
    "aws": "AKIA" + "IOSFODNN7EXAMPLX",
    "github": "ghp_" + "a1B2" * 9,
    "github fine-grained": "github_pat_" + "11ABCDEFG0" + "a" * 11 + "_" + "b" * 59,
    "gitlab": "glpat-" + "x1Y2z" * 4,
    "slack": "xoxb-" + "123456789012-1234567890123-" + "aB3" * 8,
    "stripe": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "openai": "sk-" + "aB3d" * 5 + "T3BlbkFJ" + "aB3d" * 5,
    "openai project": "sk-proj-" + "aB3d_-" * 20,
    "anthropic": "sk-ant-" + "api03-" + "aB3d" * 23 + "-aAAA",
    "hugging face": "hf_" + "aBcDeFgHiJ" * 3 + "abcd",
    "google": "AIza" + "SyD9tSrke72PouQMnMXa7eZSW0jkFMBWYxx",
    "jwt": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2",
    "private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "pypi": "pypi-" + "AgEIcHlwaS5vcmc" + "a" * 70,
    "telegram": "123456789:" + "AAE" + "aB3d" * 8,
    "basic auth": "https://" + "user:hunter22@db.internal/x",
    "password": 'password = "' + 'hunter2hunter2"',
    "email": "jane.doe+news@mail" + ".example-company.de",
    "card": "4111 1111 " + "1111 1111",
    "card without spaces": "5500" + "005555555559",
    "amex": "3782-822463-" + "10005",
    "iban": "DE89 3704 0044 0532 " + "0130 00",
}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("sentence", ["{}", "Please keep {} for me.", "a\nb {}\nc"])
def test_each_kind_of_secret_is_found_alone_and_in_prose(name: str, sentence: str) -> None:
    assert list(look(sentence.format(TOKENS[name])))


@pytest.mark.parametrize(
    "text",
    [
        "She had 14000-3920-1000 = 9080 dollars left; 6000-600-150-1200-2000 was the rest.",
        "The total is 4111111111111112 atoms.",  # fails Luhn
        "0000 0000 0000 0000 and 9999 9999 9999 9995",  # pass Luhn, no issuer's
        "12345678901234567890123",
        "Speed: 3.14159265358979 or 2,305,843,009,213,693,951",
        "See Section 7.2.1.5 of TAOCP and version 1.2.3.0, e.g. git@github",
        "ORD 12345 and GB12 are gates; SK1 2345 6789 0123 is no account.",
        "Write to someone@example.com or root@localhost.",
        'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
        "The password must have eight letters. What is a token in NLP? A secret of success!",
        "passwords are hard; key: value; API keys should be rotated",
        "@user, @bot and @everyone: meet at noon.",
        "hf_short, AIza, sk-learn, sk-image, ghp_",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert list(look(text)) == []


def test_secrets_are_found_however_deep_they_lie() -> None:
    row = {"messages": [{"role": "user", "content": [{"text": TOKENS["github"]}]}]}
    assert scan([("a:1", row)]).findings[0].origin == "a:1"
    deep: Any = TOKENS["github"]
    for _ in range(20_000):
        deep = [deep]
    assert len(scan([("a:1", deep)]).findings) == 1
    assert len(scan([("a:1", {TOKENS["github"]: 1})]).findings) == 1


def test_what_is_shown_does_not_repeat_the_secret() -> None:
    for secret in TOKENS.values():
        for finding in scan([("a:1", secret)]).findings:
            assert secret not in finding.shown
            shown = finding.shown.partition(" (")[0].replace("…", "")
            assert len(shown) <= max(0, min(6, len(secret) // 3))


def test_rows_with_findings_are_excluded_unless_kept_on_purpose() -> None:
    found = scan([("a:1", TOKENS["email"]), ("a:2", "nothing"), ("a:3", TOKENS["card"])])
    assert found.rows == 3
    assert found.excluded(Allowlist()) == {"a:1", "a:3"}
    assert found.excluded(Allowlist(origins=frozenset({"a:1"}))) == {"a:3"}
    assert found.excluded(Allowlist(kinds=frozenset({"Card number"}))) == {"a:1"}
    marks = frozenset(f.mark for f in found.findings if f.origin == "a:1")
    assert found.excluded(Allowlist(marks=marks)) == {"a:3"}


def test_keeping_one_finding_does_not_keep_a_row_with_another() -> None:
    found = scan([("a:1", f"{TOKENS['email']} {TOKENS['card']}")])
    email = next(f for f in found.findings if f.kind == "E-mail address")
    assert found.excluded(Allowlist(marks=frozenset({email.mark}))) == {"a:1"}


def test_no_detector_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a detector went to the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(scan(TOKENS.items()).findings) >= len(TOKENS)


def test_odd_values_do_not_stop_a_scan() -> None:
    odd = ["\ud800 broken", "\x00" * 100, "", None, 3, True, 1.5, {"a": None}, "@" * 10_000]
    assert scan([(str(i), value) for i, value in enumerate(odd)]).rows == len(odd)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit", ["a", "1 ", "a.a@", "sk-", "AB12 ", "://a:", "eyJ", "password=", "4111 ", "xoxb-1"]
)
def test_a_long_line_of_repetition_does_not_hang_a_detector(unit: str) -> None:
    line = unit * (100_000 // len(unit))
    began = time.process_time()
    scan([("a:1", line)])
    assert time.process_time() - began < 10  # quadratic patterns took minutes


def test_a_secret_is_found_wherever_a_long_line_is_cut() -> None:
    for place in range(1700, 2200, 13):
        text = "x " * (place // 2) + TOKENS["github"] + " y" * 2000
        assert len(scan([("a:1", text)]).findings) == 1
