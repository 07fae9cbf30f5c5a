"""The consent sheet: everything a volunteer should know before anything happens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.enrolment import CommunityInfo, fingerprint
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.aggregation.secagg import in_words
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.client.data.split import Split
from nomoat.client.identity.software import software
from nomoat.client.membership.agreement import UNKNOWN_RATE, Agreement
from nomoat.client.sent.log import SentMessage
from nomoat.client.settings import VolunteerSettings

BYTES = 4  # a value
GIGABYTE = 1_000_000_000
RECEIVED = "the adapter to train from, the candidate to measure, the new version"


def sheet(
    info: CommunityInfo,
    settings: VolunteerSettings,
    split: Split,
    rank: int,
    fit: str,
    agreed: Agreement,
) -> str:
    """The sheet as text, one fact a line.

    rank: modules this machine trains at most. fit: what training takes of it (community_fit.py).
    agreed: the figures that accepting it agrees to.
    """
    update = BYTES * info.adapter_values / 1e6
    exchanges = _exchanges(info)
    return "\n".join(
        [
            f"Community    {one_line(info.name)}  ({fingerprint(info.public)})",
            *([f"             {one_line(info.about)}"] if info.about else []),
            f"Coordinator  {settings.address}",
            f"Base model   {one_line(info.base_model)}, licence "
            f"{one_line(info.base_license) or 'not stated'}, "
            f"{_size(info.base_bytes)}, content hash {info.base_hash.hex()[:16]}…",
            f"Your data    {settings.data}: {split.line()}. It stays on this machine.",
            *_work(info, settings, agreed, rank),
            *_machine(fit, agreed),
            f"Sent         {exchanges * update:.1f} MB a round (an update of "
            f"{info.adapter_values} values), losses and counts, your name {settings.name} and its "
            "public keys",
            f"Received     {received_bytes(info, agreed) / 1e6:.1f} MB a round at most: {RECEIVED}",
            f"Protection   {protection(info)}",
            *_privacy(settings, agreed),
            *_shown(settings),
            *_owners(settings, info),
            *_peers(settings),
            "Code         only what is installed here runs; the coordinator cannot send code, "
            "paths or files",
            "Leaving      nomoat leave, at any time; nomoat pause gives your machine back",
        ]
    )


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= GIGABYTE else f"{size / 1e6:.0f} MB"


def _work(
    info: CommunityInfo, settings: VolunteerSettings, agreed: Agreement, rank: int
) -> list[str]:
    steps = f"{agreed.steps} steps"
    if agreed.epochs and agreed.learning_rate < UNKNOWN_RATE:
        steps = f"{agreed.epochs} passes over your rows in steps"
    twice = ", twice: one adapter is your own" if agreed.trainings > 1 else ""
    where = "" if settings.device == "auto" else f" on {settings.device}"
    rate = f", learning rate {agreed.learning_rate:g}"
    return [
        f"Work         about {steps} of {info.batch_size} x {info.seq_len} tokens a round{where}"
        f"{twice}{rate if agreed.learning_rate < UNKNOWN_RATE else ''}; never more than "
        f"{settings.max_steps} steps{'' if rank == MAX_RANK else f', rank {rank} at most'}",
        f"             up to {agreed.rounds_per_day} rounds a day, {agreed.evaluations} adapters "
        f"to measure in each; over {agreed.room_percent} % more than this is declined",
    ]


def _machine(fit: str, agreed: Agreement) -> list[str]:
    """Say what training takes of this machine, and of its memory at most."""
    if agreed.memory is None:
        return [f"This machine {fit}"]
    most = agreed.memory.most_bytes / 1e9
    return [
        f"This machine {fit}",
        f"             never more than {most:.1f} GB of it: a round that needs more is trained in "
        "smaller pieces, or declined",
    ]


def received_bytes(info: CommunityInfo, agreed: Agreement) -> int:
    """Bytes of adapters that come in a round: task, candidate, version, and replies between."""
    return BYTES * (2 * agreed.adapter_values + _exchanges(info) * agreed.adapter_values)


def _exchanges(info: CommunityInfo) -> int:
    try:
        return methods.get(info.method).traits.exchanges
    except UsageError:
        return 1


def _privacy(settings: VolunteerSettings, agreed: Agreement) -> list[str]:
    """Say what an audit shows of an update, what else becomes of whoever does not agree to it, and
    what bounds the adapter's memory.
    """
    memory = in_words.private(agreed.epsilon, agreed.delta, agreed.participations)
    kept = [f"Memorising   {memory}"]
    if not agreed.audit_words:
        return kept
    lines = in_words.audited(agreed.audit_words)
    if not settings.audit:
        lines += "; without your word (audit in settings.toml) no sum here includes you"
    return [f"Audit        {lines}", *kept]


def _shown(settings: VolunteerSettings) -> list[str]:
    """Say what the coordinator is told of this machine."""
    if not settings.show_software:
        return []
    return [f"Shown        to the coordinator: {software()} (show_software in settings.toml)"]


def _owners(settings: VolunteerSettings, info: CommunityInfo) -> list[str]:
    """Say what its owner's own settings ask of a session."""
    return [f"Your rules   {own_rules(settings)}"] if info.secure else []


def own_rules(settings: VolunteerSettings) -> str:
    """Say what the owner's settings ask of a session beside the community's minimum."""
    fewest = (
        f"only among {settings.min_participants} or more; " if settings.min_participants else ""
    )
    a_day = f"{settings.rounds_a_day} rounds a day at most; " if settings.rounds_a_day else ""
    again = f"may be repeated with other members {settings.repeats} times a day"
    if not settings.repeats:
        again = "is not repeated with other members"
    audited = "may" if settings.audit else "may not"
    return f"{fewest}{a_day}a failed round {again}; your update's size {audited} be audited"


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


def weakness(info: CommunityInfo) -> str | None:
    """Say what has to be accepted by its own name, None if nothing has."""
    if not info.secure:
        return "your updates are not masked"
    if info.min_participants < WEAK_BELOW:
        return f"your updates may be summed among {info.min_participants} only (weak)"
    return None


def protection_now(info: CommunityInfo, sent: Sequence[SentMessage]) -> str:
    """Say the same with the real size of the last session an update of ours was summed in."""
    at = max((i for i, entry in enumerate(sent) if entry.tensors), default=None)
    if at is None:
        return f"{protection(info)}; nothing was sent yet"
    last = sent[at]
    if last.session_size is None:
        return f"NONE in round {last.round}: the coordinator saw this volunteer's update"
    # After it, its list of survivors may have been signed: what is summed in the end.
    signed = [entry.session_size for entry in sent[at + 1 :] if entry.session_size is not None]
    size = min(last.session_size, *signed) if signed else last.session_size
    strength = "weak" if size < WEAK_BELOW else "secure"
    fewer = f", of whom {size} were summed" if size < last.session_size else ""
    return (
        f"{strength}: in round {last.round} the update left masked, one of {last.session_size}"
        f"{fewer}; {protection(info)}"
    )
