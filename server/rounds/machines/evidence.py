"""Evidence of a round: what it showed of those who took part, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SessionEvidence:
    """The evidence of one exchange (docs/protocol.md §12.5, §15.4, §15.5).

    wrong: volunteer → what it signed that cannot be. complaints: accuser → accused; either may be
    the one that lies. silent: who was waited for in vain; an exchange without masks shows no more.
    bearable: c, the most of them that may be corrupt. failed: no sum came of it. proofs: volunteer
    → what anybody can find its lie from, where there is that (audit/evidence.py). sizes:
    of updates over the bound, where they were audited. undecoded: one of those who are in the sum
    sent what no update is, and masks hide who. parts: of each session, where there were several at
    once. left_out: who was in each sum that was left out of a round that had several.
    """

    wrong: Mapping[str, str] = field(default_factory=dict)
    complaints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bearable: int = 0
    failed: bool = False
    silent: frozenset[str] = frozenset()
    proofs: Mapping[str, bytes] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    undecoded: bool = False
    parts: tuple[SessionEvidence, ...] = ()
    left_out: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class RoundEvidence:
    """The evidence of a whole round.

    sessions: each masked one. silent: who was online, was asked and never answered. heard: who
    answered anything.
    """

    sessions: tuple[SessionEvidence, ...] = ()
    silent: frozenset[str] = frozenset()
    heard: frozenset[str] = frozenset()
