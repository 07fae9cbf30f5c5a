"""Writing down what has come back of a restored community: each state of it one transaction."""

from __future__ import annotations

import json

from nomoat.aggregation.protocol.lineage import SignedVersion, Version
from nomoat.server.community.database import Database
from nomoat.server.community.membership_rules import Applicant
from nomoat.server.community.versions import VersionStore
from nomoat.server.recovery.recovered import Recovered
from nomoat.server.rounds.records import BROUGHT_BACK, RoundRecord


def keep_chain(versions: VersionStore, before: Recovered, after: Recovered, now: int) -> None:
    """Put the records of `after` in the place of those of `before`.

    Files of their adapters are not here; the newest one's may come.
    """
    database = versions.database
    with database.transaction():
        database.run("DELETE FROM versions WHERE number > ?", before.base.record.version.number)
        for record in filter(_of_a_round, before.records):
            database.run("DELETE FROM rounds WHERE number = ?", record.version.round)
        for record in after.records:
            database.append_version(record)
            if _of_a_round(record):
                text = json.dumps(_round_of(record.version).as_json())
                database.put_round(record.version.round, True, text, b"")
        adapters = {record.version.adapter for record in after.records}
        database.note_pruned([each for each in adapters if not versions.path(each).exists()], now)


def keep_roster(database: Database, before: Recovered, after: Recovered, now: int) -> None:
    """Put the roster of `after` in the place of that of `before`, and everybody's standing."""
    members = after.roster.members
    with database.transaction():
        database.run("DELETE FROM roster WHERE idx >= ?", before.base_roster.length)
        for entry in after.entries:
            database.append_roster(entry)
        for name in before.roster.members.keys() - members.keys():
            database.run("DELETE FROM volunteers WHERE name = ?", name)
        for name, member in members.items():
            binding = member.binding
            database.run(
                "DELETE FROM volunteers WHERE name != ? AND (identity = ? OR node_key = ?)",
                name,
                binding.identity,
                binding.node_key,
            )  # fmt: skip - one who waited for approval, and has moved since
            applicant = Applicant(binding, member.standing, member.reason)
            if database.applicant(name) != applicant:
                database.put_applicant(applicant, now)


def keep_adapter(versions: VersionStore, digest: bytes) -> None:
    """Note that the file of this adapter has come."""
    versions.database.run("DELETE FROM pruned WHERE adapter = ?", digest)


def _of_a_round(record: SignedVersion) -> bool:
    """Return False of a version that says something: a rollback, a restored backup."""
    return not record.version.note


def _round_of(version: Version) -> RoundRecord:
    """Return what a version tells of the round that gave it; the rest is lost."""
    return RoundRecord(
        version.round,
        True,
        BROUGHT_BACK,
        contributors=version.contributors,
        loss=version.loss,
        evaluation=version.evaluation,
        adapter=version.adapter.hex(),
        noise=0.0 if version.noise is None else version.noise.noise_multiplier,
    )
