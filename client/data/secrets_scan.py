"""Rows that look like keys, tokens, passwords, e-mail addresses, card or account numbers.

Detectors are detect-secrets' (Yelp) for keys, email-validator's and python-stdnum's checks for the
rest; what was measured and why each was chosen: docs/adr/0003-secrets-in-data.md. What a model is
trained on it can repeat, so a row with a finding is left out unless its owner keeps it on purpose.
Nothing is looked up anywhere: no detector here opens a connection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

Hit: TypeAlias = tuple[str, str]  # (kind, the text that was found)

MAX_SECRETS_PER_ROW: Final = 20
PIECE_CHARACTERS: Final = 2048
PIECE_OVERLAP: Final = 256  # a longer secret is found by its beginning

# detect-secrets 1.5.0 has no plugin for these; prefixes and lengths are the issuers' own.
NEWER_TOKENS: Final = (
    ("GitHub fine-grained token", r"\bgithub_pat_[0-9A-Za-z_]{22,255}\b"),
    ("OpenAI key", r"\bsk-(?:proj|svcacct|admin|None)-[0-9A-Za-z_-]{40,250}"),
    ("Anthropic key", r"\bsk-ant-[a-z]+[0-9]{2}-[0-9A-Za-z_-]{80,130}"),
    ("Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z]{34}\b"),
    ("Google API key", r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
)
# Left out on purpose: entropy (quoted hashes in code), public IP addresses (section numbers).
PLUGINS: Final = (
    *("artifactory.ArtifactoryDetector", "aws.AWSKeyDetector"),
    *("azure_storage_key.AzureStorageKeyDetector", "basic_auth.BasicAuthDetector"),
    *("cloudant.CloudantDetector", "discord.DiscordBotTokenDetector"),
    *("github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector"),
    *("ibm_cloud_iam.IbmCloudIamDetector", "ibm_cos_hmac.IbmCosHmacDetector"),
    *("jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector"),
    *("openai.OpenAIDetector", "private_key.PrivateKeyDetector", "pypi_token.PypiTokenDetector"),
    *("sendgrid.SendGridDetector", "slack.SlackDetector", "softlayer.SoftlayerDetector"),
    *("square_oauth.SquareOAuthDetector", "stripe.StripeDetector"),
    *("telegram_token.TelegramBotTokenDetector", "twilio.TwilioKeyDetector"),
)
# What every match of a slow plugin's pattern holds.
NEEDED: Final = {"OpenAIDetector": "T3BlbkFJ"}
# Candidates only; the libraries decide.
_EMAIL: Final = re.compile(r"[\w.+%'-]{1,64}@[\w.-]{1,253}\.\w{2,63}")
_CARD: Final = re.compile(
    r"(?<![\w.,/-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}"
    r"|[2-6]\d{12,18})(?![\w/-]|[.,]\d)"
)
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
# First digits of the card schemes (ISO/IEC 7812-1; the schemes' published ranges).
_ISSUERS: Final = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|3[47]|3(?:0[0-5]|[689])"
    r"|6(?:011|5|4[4-9]|2)|35(?:2[89]|[3-8]\d)|50|5[6-9]|6[0-9]"
)


@dataclass(frozen=True, slots=True)
class SecretFinding:
    """One thing that looks secret. `shown`: shortened, for a screen. `mark`: names it in a keep
    list without repeating it (SHA-256, first 16 hex digits)."""

    origin: str
    kind: str
    shown: str
    mark: str


@dataclass(frozen=True, slots=True)
class Allowlist:
    """The owner's exceptions: rows by origin, kinds, or single findings by their mark."""

    origins: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()

    def allows(self, finding: SecretFinding) -> bool:
        """Return True if this finding is no reason to leave its row out."""
        return (
            finding.origin in self.origins
            or finding.kind in self.kinds
            or finding.mark in self.marks
        )


@dataclass(frozen=True, slots=True)
class Scan:
    """The findings in `rows` rows, in their order."""

    rows: int
    findings: tuple[SecretFinding, ...]

    def excluded(self, allowlist: Allowlist) -> frozenset[str]:
        """Origins of rows to leave out of training."""
        return frozenset(f.origin for f in self.findings if not allowlist.allows(f))


def scan(rows: Iterable[tuple[str, Any]]) -> Scan:
    """Look through rows, each (origin, value); strings are found in any nesting of a value."""
    count, findings = 0, list[SecretFinding]()
    for origin, value in rows:
        count += 1
        hits = dict.fromkeys(hit for text in _texts(value) for hit in look(text))
        found = [_finding(origin, kind, secret) for kind, secret in hits]
        findings += found[:MAX_SECRETS_PER_ROW]
    return Scan(count, tuple(findings))


def look(text: str) -> Iterator[Hit]:
    """Find what looks secret in a text; twice, maybe, where two pieces overlap."""
    for piece in _pieces(text):
        for detector in _detectors():
            yield from detector(piece)


def _pieces(text: str) -> Iterator[str]:
    """Overlapping cuts of a long text: some of the detectors' patterns backtrack quadratically."""
    for start in range(0, max(1, len(text) - PIECE_OVERLAP), PIECE_CHARACTERS - PIECE_OVERLAP):
        yield text[start : start + PIECE_CHARACTERS]


def _texts(value: Any) -> Iterator[str]:
    """All strings in a value, keys included; iterative, since nesting is the file's to choose."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [*value.values(), *value.keys()]
        elif isinstance(value, list | tuple):
            waiting += value


def _finding(origin: str, kind: str, secret: str) -> SecretFinding:
    """A finding that shows at most a third of the secret, and never more than six characters."""
    ends = min(3, len(secret) // 6)
    shown = f"{secret[:ends]}…{secret[len(secret) - ends :]} ({len(secret)} characters)"
    mark = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return SecretFinding(origin, kind, shown.replace("\n", " "), mark)


@cache
def _detectors() -> tuple[Callable[[str], Iterator[Hit]], ...]:
    from importlib import import_module

    loaded = []
    for name in PLUGINS:
        module, _, attribute = name.partition(".")
        plugin = getattr(import_module(f"detect_secrets.plugins.{module}"), attribute)()
        loaded.append(_plugin(plugin, NEEDED.get(attribute, "")))
    return (*loaded, _newer_tokens, _passwords(), _emails, _cards, _ibans)


def _plugin(plugin: Any, needed: str) -> Callable[[str], Iterator[Hit]]:
    def hits(text: str) -> Iterator[Hit]:
        if needed not in text:
            return
        for secret in plugin.analyze_string(text):
            yield str(plugin.secret_type), str(secret)

    return hits


def _newer_tokens(text: str) -> Iterator[Hit]:
    for kind, pattern in NEWER_TOKENS:
        for found in re.finditer(pattern, text):
            yield kind, found.group()


def _passwords() -> Callable[[str], Iterator[Hit]]:
    """detect-secrets' keyword plugin (the slow one), on lines that hold one of its keywords."""
    from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector

    plugin: Any = KeywordDetector()
    keyword = re.compile("|".join(DENYLIST), re.IGNORECASE)

    def hits(text: str) -> Iterator[Hit]:
        if keyword.search(text) is None:
            return
        for number, line in enumerate(text.splitlines(), 1):
            if keyword.search(line) is not None:
                for found in plugin.analyze_line(filename="", line=line, line_number=number):
                    if len(found.secret_value or "") >= 4:
                        yield "Password or secret by name", str(found.secret_value)

    return hits


def _emails(text: str) -> Iterator[Hit]:
    """Addresses that mail could be sent to; reserved domains (RFC 2606) are nobody's."""
    if "@" not in text:
        return
    from email_validator import EmailNotValidError, validate_email

    for found in _EMAIL.finditer(text):
        address = found.group().strip(".'")
        try:
            checked = validate_email(address, check_deliverability=False)
        except EmailNotValidError:
            continue
        if checked.ascii_domain not in ("example.com", "example.org", "example.net"):
            yield "E-mail address", address


def _cards(text: str) -> Iterator[Hit]:
    from stdnum import luhn

    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found.group())
        if _ISSUERS.match(digits) and luhn.is_valid(digits):
            yield "Card number", found.group()


def _ibans(text: str) -> Iterator[Hit]:
    from stdnum import iban

    for found in _IBAN.finditer(text):
        if iban.is_valid(found.group()):
            yield "Bank account (IBAN)", found.group()
