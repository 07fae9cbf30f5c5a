"""The consent sheet: everything a volunteer should know before anything happens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.aggregation.protocol.enrolment import CommunityInfo, fingerprint
from nomoat.aggregation.secagg import in_words
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.client.data.split import Split
from nomoat.client.sent.log import SentMessage
from nomoat.client.settings import VolunteerSettings


def sheet(
    info: CommunityInfo, settings: VolunteerSettings, split: Split, rank: int, fit: str
) -> str:
    """The sheet as text, one fact a line.

    rank: modules this machine trains at most. fit: what training takes of it (community_fit.py).
    """
    megabytes = 4 * info.adapter_values / 1e6
    rows = split.line()
    return "\n".join(
        [
            f"Community    {_clean(info.name)}  ({fingerprint(info.public)})",
            *([f"             {_clean(info.about)}"] if info.about else []),
            f"Coordinator  {settings.address}",
            f"Base model   {_clean(info.base_model)}, licence {_clean(info.base_license) or '?'}, "
            f"{info.base_bytes / 1e9:.2f} GB, content hash {info.base_hash.hex()[:16]}…",
            f"Your data    {settings.data}: {rows}. It stays on this machine.",
            f"Work         about {info.local_steps} steps of {info.batch_size} x {info.seq_len} "
            f"tokens a round on {settings.device}; never more than {settings.max_steps} steps, "
            f"rank {rank} at most",
            f"This machine {fit}",
            f"Sent         {megabytes:.1f} MB a round (an update of {info.adapter_values} values), "
            f"losses and counts, your name {settings.name} and its public keys",
            f"Received     {megabytes:.1f} MB a round: the community adapter",
            f"Protection   {protection(info)}",
            *_peers(settings),
            "Code         only what is installed here runs; the coordinator cannot send code, "
            "paths or files",
            "Leaving      nomoat leave, at any time; nomoat pause gives your machine back",
        ]
    )


def _peers(settings: VolunteerSettings) -> list[str]:
    if not settings.known_peers:
        return []
    days = f"{settings.known_days:g} days"
    return [
        f"Peers        only among {settings.known_peers} or more others that this machine has "
        f"known for {days}, so not in its first {days} here"
    ]


def protection(info: CommunityInfo) -> str:
    """Say how updates are protected, in one line."""
    return in_words.protection(info.secure, info.min_participants)


def protection_now(info: CommunityInfo, sent: Sequence[SentMessage]) -> str:
    """Say the same with the real size of the last session an update of ours was summed in."""
    updates = [entry for entry in sent if entry.tensors]
    if not updates:
        return f"{protection(info)}; nothing was sent yet"
    last = updates[-1]
    if last.session_size is None:
        return f"NONE in round {last.round}: the coordinator saw this volunteer's update"
    strength = "weak" if last.session_size < WEAK_BELOW else "secure"
    return (
        f"{strength}: in round {last.round} the update left masked, one of {last.session_size}; "
        f"{protection(info)}"
    )


def _clean(text: str) -> str:
    """Printable and on one line: a community may not draw on a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
