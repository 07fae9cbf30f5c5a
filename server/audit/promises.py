"""The promises of a community, each checked on all that it applies to.

    chain      versions and roster are signed and unbroken; every version's file is the one named
    history    every version is of a round that was committed, and the other way round
    noise      what a version says of the noise in its sum is what its round had, and comes to ε
    credit     every update in a sum has its receipt, and every receipt is signed
    database   its engine finds it whole; standings are the roster's; nothing is over or missing

`audit` goes in small pieces, so that a coordinator that is up can take its time over it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import lineage, receipts
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import SUFFIX, is_whole
from nomoat.server.rounds.records import BROUGHT_BACK, ERASED, RoundRecord, same_people

Piece = Iterator[str | None]  # a fault in words, or None where there is none


def audit(community: OpenCommunity) -> Piece:
    """Yield a line for each broken promise, and None after each piece that is as it should be."""
    for part in (_database, _chain, _files, _history, _noise, _credit, _standings):
        try:
            yield from part(community)
        except (NomoatError, ValueError, KeyError, TypeError) as problem:
            yield f"damaged beyond reading: {problem}"


def cut_off(community: OpenCommunity) -> str | None:
    """Say so if the database ends before a round that was begun in its folder; None if not.

    That is what a copy without its -wal looks like, which SQLite takes for a whole one.
    """
    try:
        begun = int(json.loads((community.folder.root / "state.json").read_bytes())["round"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    last = community.registrar.database.last_record()
    ended = -1 if last is None else int(json.loads(last)["round"])
    if begun <= ended + 1:
        return None
    own = community.folder.place == community.folder.database
    name = community.folder.database.name
    copied = f"was it copied without {name}-wal? Put that beside it" if own else "was it put back?"
    return (
        f"{community.registrar.database.place} ends with round {ended}, but round {begun} was "
        f"begun here: {copied}, or bring a backup back with nomoat restore"
    )


def _database(community: OpenCommunity) -> Piece:
    yield from (f"database: {fault}" for fault in community.registrar.database.faults())
    yield cut_off(community)


def _chain(community: OpenCommunity) -> Piece:
    try:
        records = community.versions.database.versions()
        lineage.check_chain(None, records, community.registrar.keys)
        community.registrar.roster()
    except NomoatError as problem:
        yield str(problem)
    yield None


def _files(community: OpenCommunity) -> Piece:
    versions = community.versions
    named = {record.version.adapter for record in versions.database.versions()}
    pruned = versions.database.pruned()
    for digest in sorted(named):
        path = versions.path(digest)
        if digest in pruned and not path.exists():
            continue
        yield None if is_whole(path, digest) else f"{path} is missing or damaged"
    for path in sorted(community.folder.adapters.glob(f"*{SUFFIX}")):
        if path.name.removesuffix(SUFFIX) not in {digest.hex() for digest in named}:
            yield f"{path} is of no version that the database knows"


def _history(community: OpenCommunity) -> Piece:
    store = community.versions.database
    rounds = {record.round: record for record in map(_record, store.rounds())}
    versions = [record.version for record in store.versions()]
    for version in versions:
        if version.note or version.number == 0:
            continue  # a rollback, a restored backup: of no round of its own
        of = rounds.get(version.round)
        if of is None or not of.committed or of.adapter != version.adapter.hex():
            yield f"version {version.number} is of round {version.round}, which did not give it"
        elif not same_people(of.contributors, version.contributors):
            yield f"version {version.number} names other contributors than round {version.round}"
        else:
            yield None
    adapters = {version.adapter.hex() for version in versions}
    for record in rounds.values():
        if record.committed and record.adapter not in adapters:
            yield f"round {record.round} was committed, and there is no version of it"


def _noise(community: OpenCommunity) -> Piece:
    store = community.versions.database
    rounds = {record.round: record for record in map(_record, store.rounds())}
    for version in (record.version for record in store.versions()):
        found = 0.0 if version.noise is None else version.noise.noise_multiplier
        if version.noise is not None and not version.noise.enough:
            yield f"version {version.number}: its noise does not come to the epsilon it names"
        elif not version.note and version.round in rounds and found != rounds[version.round].noise:
            yield f"version {version.number} names other noise than round {version.round} had"
        else:
            yield None


def _credit(community: OpenCommunity) -> Piece:
    store, keys = community.versions.database, community.registrar.keys
    credited: set[tuple[int, bytes]] = set()
    for signed in store.all_receipts():
        found = signed.receipt
        try:
            receipts.check(signed, keys, found.volunteer)
            credited.add((found.round, found.volunteer))
            yield None
        except RemoteProtocolError as problem:
            yield f"a receipt of round {found.round} {problem.reason}"
    members = community.registrar.roster().members
    for record in map(_record, store.rounds()):
        if record.reason == BROUGHT_BACK:
            continue  # its receipts are its members', who may bring them back
        for name in record.contributors:
            member = members.get(name)
            if member is None and name.startswith(ERASED):
                continue  # its receipts were erased with it
            if member is None:
                yield f"round {record.round} was summed with {name}, who never joined"
            elif (record.round, member.binding.identity) not in credited:
                yield f"{name} is in the sum of round {record.round} and has no receipt for it"
    yield None


def _standings(community: OpenCommunity) -> Piece:
    members = community.registrar.roster().members
    known = {each.binding.name: each.standing for each in community.registrar.database.applicants()}
    for name, member in members.items():
        if known.get(name) is not member.standing:
            yield f"{name} is {member.standing.value} in the roster, and not in the database"
    for name, standing in known.items():
        if name not in members and standing is not Standing.PENDING:
            yield f"{name} is {standing.value}, and not in the roster"
    yield None


def _record(text: str) -> RoundRecord:
    return RoundRecord.from_json(json.loads(text))
