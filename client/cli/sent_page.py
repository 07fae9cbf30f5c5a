"""`nomoat sent`, `sent --verify`, `sent --preview` and `nomoat credit` as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.receipts import Credit
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.client.sent.log import Reconciled, SentMessage, SentTensor, VerifiedLog

SHOWN_TENSORS = 3
UNSEEN = (
    "not covered: whoever may write your files can write the chain anew without the lines that "
    "have no receipt, at its end or before, and change all but the packet of those that have one"
)


def render_sent(entries: Sequence[SentMessage], last: int = 20) -> str:
    """The last messages that left, newest last, and what they come to."""
    if not entries:
        return "nothing has left this machine"
    total = sum(entry.bytes for entry in entries)
    head = f"{len(entries)} messages, {size(total)} in all"
    return "\n".join([head, *(render_entry(entry) for entry in entries[-last:])])


def render_entry(entry: SentMessage) -> str:
    """One message on one line."""
    said = [
        f"{when(entry.at)}  round {entry.round}  {entry.message} to {entry.to}, {size(entry.bytes)}"
    ]
    if entry.tensors:
        said.append(tensors(entry.tensors))
    if entry.norm is not None:
        clip = f", values within ±{entry.clip:.3g}" if entry.clip is not None else ", unclipped"
        said.append(f"norm {entry.norm:.4g}{clip}")
    said += _protection(entry)
    return one_line("; ".join(said))


def _protection(entry: SentMessage) -> list[str]:
    """Say how the update was hidden, or that it was not."""
    said = []
    if entry.masked:
        others = f" among {entry.session_size}" if entry.session_size is not None else ""
        weak = entry.session_size is not None and entry.session_size < WEAK_BELOW
        said.append(f"{'weak: ' if weak else ''}masked{others}")
    elif entry.tensors:
        said.append("NOT masked: the coordinator can read it")
    if entry.epsilon is not None:
        said.append(f"privacy spent ε = {entry.epsilon:.3g} at δ = {entry.delta or 0:.1g}")
    return said


def tensors(found: Sequence[SentTensor]) -> str:
    """Names and shapes, the first few in full."""
    shown = [f"{t.name} {'×'.join(map(str, t.shape))}" for t in found[:SHOWN_TENSORS]]
    more = f" and {len(found) - SHOWN_TENSORS} more" if len(found) > SHOWN_TENSORS else ""
    return f"{len(found)} tensors ({', '.join(shown)}{more})"


def render_preview(entry: SentMessage) -> str:
    """The update that a round would send, before anything is sent."""
    return (
        "a round would send:\n  "
        + render_entry(entry)
        + "\nthis is a preview: nothing has been sent now."
    )


def render_verified(checked: VerifiedLog, found: Reconciled, problems: Sequence[str]) -> str:
    """The result of `--verify`; the last line is the verdict."""
    lines = [f"the chain is whole: {checked.head.length} messages, {checked.head.hash.hex()[:16]}…"]
    if checked.torn:
        lines.append("a last line was never finished: its message did not leave")
    lines.append(f"{found.receipted} updates have the community's receipt")
    if found.unreceipted:
        lines.append(f"{len(found.unreceipted)} have none: the coordinator did not use them")
    lines += [f"not a valid receipt: {problem}" for problem in problems]
    for receipt in found.unlogged:
        lines.append(
            f"round {receipt.round}: a receipt for {receipt.packet.hex()[:16]}…, which is not in "
            "the log: it lost its end, or something left unseen"
        )
    good = not problems and not found.unlogged
    return "\n".join([*lines, UNSEEN, "verified" if good else "NOT verified"])


def verified_json(
    checked: VerifiedLog, found: Reconciled, problems: Sequence[str], older: int
) -> dict[str, Any]:
    """The same for `--json`. older: receipts of a log that was put aside."""
    return {
        "messages": checked.head.length,
        "hash": checked.head.hash.hex(),
        "receipted": found.receipted,
        "without_receipt": len(found.unreceipted),
        "unlogged": [receipt.packet.hex() for receipt in found.unlogged],
        "problems": list(problems),
        "older_receipts": older,
        "ok": not problems and not found.unlogged,
    }


def render_credit(credits: Sequence[Credit], names: dict[bytes, str]) -> str:
    """Credit per community, from receipts alone."""
    if not credits:
        return "no receipts yet: credit begins with the first update a community takes"
    lines = []
    for credit in credits:
        name = one_line(names.get(credit.community, credit.community.hex()[:16] + "…"))
        span = f"{when(credit.first_at)} to {when(credit.last_at)}"
        lines.append(f"{name}: {credit.rounds} rounds, {credit.tokens:,} tokens, {span}")
    return "\n".join(lines)


def credit_json(credits: Sequence[Credit], names: dict[bytes, str]) -> list[dict[str, Any]]:
    """The same for `--json`."""
    return [
        {**asdict(c), "community": c.community.hex(), "name": names[c.community]} for c in credits
    ]


def sent_json(entries: Sequence[SentMessage]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [asdict(entry) for entry in entries]


def when(at_s: float) -> str:
    """A time of the log, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%SZ}"


def size(count: int) -> str:
    """Bytes for a person: powers of 1024."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
