"""Versions of the adapter: their list, one of them with its card, and how far two lie apart."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.server.community.opened import OpenCommunity, card
from nomoat.server.release.releasing import ReleaseState, orders, states
from nomoat.server.release.releasing import order as say
from nomoat.server.release.rolling_back import ask, waiting
from nomoat.serving.variants.distance import LayerDistance, distances

MOST_LAYERS: Final = 12
MOST_DIGITS: Final = 9  # of a version's number
WORDS: Final = {"hold": ReleaseState.HELD, "release": ReleaseState.RELEASED}


@dataclass(frozen=True)
class VersionRow:
    """A version. losses in nats per token; None: not measured. state: candidate, released, held."""

    number: int
    round: int
    at: float
    contributors: int
    loss: float | None
    evaluation: float | None
    method: str
    note: str
    digest: str
    state: str


@dataclass(frozen=True)
class VersionView:
    """One version with its card. moved: layers that differ most from the version before; layers:
    how many there are in all.
    """

    row: VersionRow
    word: str  # what a person has said of it
    card: str
    signature: str
    parent: int | None
    moved: tuple[LayerDistance, ...]
    layers: int
    goes_back: int | None  # to the version that a person has ordered, when no round is under way


def version_rows(community: OpenCommunity) -> tuple[VersionRow, ...]:
    """Every version, the newest first."""
    stand = states(community, int(time.time()))
    records = reversed(community.versions.database.versions())
    return tuple(_row(record, stand[record.version.number]) for record in records)


def version_view(community: OpenCommunity, number: int) -> VersionView:
    """One version; UsageError if there is none of this number."""
    record, ordered = community.versions.get(number), waiting(community)
    moved = _moved(community, record)
    return VersionView(
        _row(record, states(community, int(time.time()))[number]),
        _word(community, number),
        card(community, record),
        record.signature.hex(),
        number - 1 if number > 0 else None,
        tuple(moved[:MOST_LAYERS]),
        len(moved),
        None if ordered is None else ordered.to,
    )


def order(community: OpenCommunity, form: Mapping[str, str], now: int) -> str:
    """Hold or release a version as a form says; a sentence that says where it stands now."""
    number, wanted = form.get("number", ""), form.get("order", "")
    if wanted not in WORDS or not number.isdecimal() or len(number) > MOST_DIGITS:
        raise UsageError("there is no such order")
    stands = say(community, int(number), WORDS[wanted], form.get("reason", "").strip(), now)
    return f"Version {number} is {stands.value}."


def go_back(community: OpenCommunity, form: Mapping[str, str], now: int) -> str:
    """Have the community go back to a version as a form says; a sentence that says when."""
    number = form.get("number", "")
    if not number.isdecimal() or len(number) > MOST_DIGITS:
        raise UsageError("there is no such order")
    ask(community, int(number), form.get("reason", ""), now)
    return f"The community goes back to version {number} when no round is under way."


def _word(community: OpenCommunity, number: int) -> str:
    said = orders(community).get(number)
    if said is None:
        return ""
    return f"{said.state.value} by a person" + (f": {said.reason}" if said.reason else "")


def packed(community: OpenCommunity, number: int) -> bytes:
    """A version as a PEFT adapter folder in a zip file."""
    record = community.versions.get(number)
    base, adapter = community.settings.base, community.versions.load(record)
    data = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="nomoat-page-") as scratch:
        folder = Path(scratch) / f"version-{number}"
        save_folder(adapter, base.model, folder, card(community, record), bytes.fromhex(base.hash))
        with zipfile.ZipFile(data, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(Path(scratch)))
    return data.getvalue()


def _moved(community: OpenCommunity, record: SignedVersion) -> Sequence[LayerDistance]:
    if record.version.number == 0:
        return ()
    before = community.versions.get(record.version.number - 1)
    versions = community.versions
    return distances(versions.load(record), versions.load(before))


def _row(record: SignedVersion, state: ReleaseState) -> VersionRow:
    version = record.version
    return VersionRow(
        version.number,
        version.round,
        version.at,
        len(version.contributors),
        version.loss,
        version.evaluation,
        version.method,
        version.note,
        version.adapter.hex(),
        state.value,
    )
