"""All that a coordinator holds of one volunteer: shown to it, and erased at its wish.

Erased: its receipts, and its name in the records of rounds and in what was noted against it, where
a word that means nobody takes its place, so that counts and sums stay true; when it was seen last
(state_file.py). What stays, because
members hold it and check it as a signed chain: its entries in the roster (the last says that it
left), the evidence that one of them names, and its name among the contributors of versions. A
coordinator that is up remembers what it read before: losses of the version that stands until its
next committed round, its page's counts until its next start.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.enrolment import Standing, fingerprint
from nomoat.server.community.database import Database
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import Applicant
from nomoat.server.conduct.cases import Cases
from nomoat.storage import arrays

NOTE = "left, and had what could be erased erased"
MOST_RECEIPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Erased:
    """Counts of what was erased: receipts, and rounds whose record named the volunteer."""

    receipts: int
    rounds: int


def erase(registrar: Registrar, identity: bytes, nobody: str, now: int) -> Erased:
    """Erase a volunteer, which leaves if it has not; one transaction.

    nobody: the word that takes its name's place. UsageError if it is not in the roster.
    """
    store = registrar.database
    with store.transaction():
        member = registrar.roster().named(identity)
        if member is None:
            raise UsageError("this volunteer is not in the roster; nothing of it is held")
        name = member.binding.name
        registrar.leave(identity, now)
        known = store.applicant(name)
        if known is not None and known.standing is not Standing.BANNED:
            store.put_applicant(Applicant(known.binding, known.standing, NOTE), now)
        store.rename_in_strikes(name, nobody)
        Cases(store).rename(name, nobody)
        receipts = store.delete_receipts(identity)
        return Erased(receipts, _rename(store, name, nobody))


def _rename(store: Database, name: str, nobody: str) -> int:
    """Put another word in the place of a name in all rounds; how many held it."""
    changed = 0
    for number, text, checkpoint in store.whole_rounds():
        record = json.loads(text)
        renamed = without(record, name, nobody)
        packed = _without_packed(checkpoint, name, nobody)
        if renamed != record or packed != checkpoint:
            changed += 1
            store.replace_round(number, json.dumps(renamed), packed)
    return changed


def _without_packed(checkpoint: bytes, name: str, nobody: str) -> bytes:
    if not checkpoint:
        return checkpoint
    try:
        meta, values = arrays.unpack(checkpoint)
    except ValueError:  # damaged: nobody reads it
        return checkpoint
    renamed = without(meta, name, nobody)
    return checkpoint if renamed == meta else arrays.pack(renamed, values)


def without(value: Any, name: str, nobody: str) -> Any:
    """JSON in which `nobody` stands wherever a key or a text was `name`."""
    if isinstance(value, dict):
        return {
            (nobody if key == name else key): without(inner, name, nobody)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [without(inner, name, nobody) for inner in value]
    return nobody if value == name else value


def held_of(registrar: Registrar, name: str) -> dict[str, Any]:
    """All that is held of a volunteer, as `volunteers export` shows it; UsageError without one."""
    store = registrar.database
    known = store.applicant(name)
    if known is None:
        raise UsageError(f"no volunteer is called {name}; see: nomoat volunteers list")
    binding = known.binding
    return {
        "name": name,
        "standing": known.standing.value,
        "reason": known.reason,
        "identity": binding.identity.hex(),
        "fingerprint": fingerprint(binding.identity),
        "node_key": binding.node_key.hex(),
        "roster": _entries(store, name),
        "receipts": _receipts(store, binding.identity),
        "noted_against": [
            {"round": number, "kind": kind, "at": at}
            for number, kind, volunteer, _, at in store.strikes()
            if volunteer == name
        ],
        **_case(store, name),
        "rounds": [found for text in store.rounds() if (found := _of_round(text, name))],
        "versions": [
            record.version.number
            for record in store.versions()
            if name in record.version.contributors
        ],
    }


def _case(store: Database, name: str) -> dict[str, Any]:
    cases = Cases(store)
    appeal = cases.appeal_of(name)
    return {
        "evidence": [
            {"digest": each.digest.hex(), "round": each.round, "bytes": len(each.data)}
            for each in cases.of(name)
        ],
        "sizes": cases.sizes_of(name),
        "appeal": None if appeal is None else asdict(appeal),
    }


def _entries(store: Database, name: str) -> list[dict[str, Any]]:
    return [
        {
            "index": signed.entry.index,
            "event": signed.entry.event,
            "reason": signed.entry.reason,
            "at": signed.entry.at,
        }
        for signed in store.roster_entries(0)
        if signed.entry.name == name
    ]


def _receipts(store: Database, identity: bytes) -> list[dict[str, Any]]:
    return [
        {
            "round": signed.receipt.round,
            "packet": signed.receipt.packet.hex(),
            "tokens": signed.receipt.tokens,
            "at": signed.receipt.at,
        }
        for signed in store.receipts(identity, 0, MOST_RECEIPTS)
    ]


def _of_round(text: str, name: str) -> dict[str, Any] | None:
    """Return what a round's record says of a volunteer; None if it does not name it."""
    record = json.loads(text)
    said: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict) and name in value:
            said[key] = value[name]
        elif isinstance(value, list) and name in value:
            said[key] = True
    return {"round": record["round"], **said} if said else None
