"""A volunteer's status and orders as text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from nomoat.aggregation.errors import UsageError
from nomoat.client.connection import known_addresses
from nomoat.client.data.split import Split, made
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.readings import Orders
from nomoat.client.membership.consent_sheet import own_rules
from nomoat.client.membership.standing import last_appeal
from nomoat.client.training.private_adapter import PrivateAdapterFile
from nomoat.client.volunteer.status import Activity, VolunteerStatus, in_words
from nomoat.lora.data.conversations import Dropped
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.device.present import names


def render_status(
    folder: CommunityFolder, now: Activity, status: VolunteerStatus | None, protection: str
) -> str:
    """The status, one fact a line, the activity first."""
    since = f", since {_clock(status.since)}" if status is not None else ""
    then = "; stops after this round, as you asked" if now.finishing else ""
    lines = [
        f"{now.doing}: {in_words(now.why)}{since}{then}",
        f"community {folder.name()} ({folder.root.name[:8]})",
        *_coordinator(folder),
        f"protection {protection}",
        *([f"your rules {rules}"] if (rules := _rules(folder)) else []),
        *_where(folder),
    ]
    if now.doing == "refused" and (sent := last_appeal(folder)) is not None:
        lines.append(f"your appeal of {_clock(sent.at)} {sent.text}")
    if split := made(folder.split):
        lines.append(f"your data {split.read} rows read: {split.line()}")
    if status is None:
        return "\n".join([*lines, *_private(folder)])
    lines += [
        f"in the last round, of the rows to {use} {told}" for use, told in rows_not_whole(status)
    ]
    if status.data is not None:
        lines.append(f"your data has changed: {status.data}")
    if status.complaint is not None:
        lines.append(f"this machine last declined: {status.complaint}")
    version = "none yet" if status.version is None else str(status.version)
    version += f" ({status.version_note})" if status.version_note else ""
    lines.append(
        f"rounds trained {status.rounds}, too late {status.late}, "
        f"sent {status.sent_bytes / 1e6:.1f} MB, newest adapter version {version}"
    )
    if status.loss is not None:
        own = "" if status.own_loss is None else f", {status.own_loss:.4f} with your own part"
        lines.append(f"held-out loss on your rows {status.loss:.4f}{own}")
    return "\n".join([*lines, *_private(folder)])


def status_json(
    folder: CommunityFolder, now: Activity, status: VolunteerStatus | None, protection: str
) -> dict[str, Any]:
    """The same for `--json`."""
    values = asdict(status) if status is not None else {}
    split = made(folder.split)
    return {
        **values,
        "community": folder.name(),
        "id": folder.root.name,
        "running": now.running,
        "doing": now.doing,
        "why": now.why,
        "finishing": now.finishing,
        "protection": protection,
        "rules": _rules(folder),
        "addresses": asdict(known_addresses.load(folder.root)),
        "devices": list(_devices(folder)),
        "appeal": None if (sent := last_appeal(folder)) is None else asdict(sent),
        "rows": None if split is None else _rows(split),
    }


def _private(folder: CommunityFolder) -> Iterator[str]:
    """Tell what the private adapter gained where it was measured last, and if that is behind."""
    kept, record = PrivateAdapterFile(folder.personal_states).load(), folder.version()
    if kept is None or not kept.gains:
        return
    last = kept.gains[-1]
    behind = record is not None and record.version.number != last.version
    then = "; nomoat adapter personal carries it on" if behind else ""
    gain = f"{last.gain:+.4f} nats a token on version {last.version}"
    yield f"your private adapter gains {gain}{then}"


def _coordinator(folder: CommunityFolder) -> Iterator[str]:
    """Tell where the coordinator is, if it has moved or said where else it is found."""
    known, address = known_addresses.load(folder.root), _address(folder)
    if known.left:
        yield f"coordinator {address}, since {_clock(known.moved)}; before at {known.left}"
    if others := known.others(address):
        yield f"looked for at {', '.join(others)} when {address} does not answer"


def _address(folder: CommunityFolder) -> str:
    try:
        return folder.load().address
    except UsageError:  # `run` says which line is amiss
        return "?"


def _rules(folder: CommunityFolder) -> str | None:
    """Say what the owner's own settings ask of a session; None where nothing is masked."""
    return own_rules(folder.load()) if folder.info().secure else None


def _devices(folder: CommunityFolder) -> tuple[str, ...]:
    """Return the devices that the owner's settings name; none where those cannot be read."""
    try:
        return names(folder.load().device)
    except UsageError:  # `run` says which line is amiss
        return ()


def _where(folder: CommunityFolder) -> Iterator[str]:
    """Tell of several devices, and of a base that is not held whole on each."""
    used = _devices(folder)
    layout = folder.load().machine.layout.in_words if used else ""
    if len(used) > 1 or layout:
        yield f"trains on {', '.join(used)}{f': {layout}' if layout else ''}"


def _rows(split: Split) -> dict[str, Any]:
    return {
        "read": split.read,
        "trained": split.train_rows,
        "held_out": split.heldout_rows,
        "secret": split.secret_rows,
        "dropped": [asdict(each) for each in split.dropped],
    }


def rows_not_whole(status: VolunteerStatus) -> Iterator[tuple[str, str]]:
    """Return their purpose, and which of them a round's length dropped or cut."""
    for use, found in (("train on", "train"), ("measure with", "measure")):
        if (rows := status.row_use.get(found)) is not None:
            dropped = tuple(Dropped(**each) for each in rows["dropped"])
            if told := RowUse(**{**rows, "dropped": dropped}).line():
                yield use, told


def render_orders(orders: Orders, now: datetime) -> str:
    """The orders in force after pause, resume or finish."""
    said = []
    if orders.paused and orders.paused_until is None:
        said.append("paused until nomoat resume; memory is given back within seconds")
    elif orders.paused and orders.paused_until and orders.paused_until > now:
        said.append(f"paused until {_since(orders.paused_until, now)}")
    if orders.finish:
        said.append("stopping after the round at hand")
    return "; ".join(said) or "training whenever the limits allow"


def _since(at: datetime, now: datetime) -> str:
    local = at.astimezone(now.tzinfo)
    return f"{local:%H:%M}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"


def _clock(at_s: float) -> str:
    return _since(datetime.fromtimestamp(at_s).astimezone(), datetime.now().astimezone())
