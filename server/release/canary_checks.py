"""Canaries are measured of a version before it is given out (`[release] canary_seconds`).

What canary_gate.py finds holds the version until a person has looked. An answer is compared with
the versions that were accepted since a person last released one, those that are held left out; with
none, with the version that is given out. What could not be measured in time holds a version, too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec, Vector
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.lora.canaries.exposure import exposure
from nomoat.lora.canaries.phrases import rows_to_measure
from nomoat.lora.canaries.readings import RowReading
from nomoat.lora.workers.jobs import RowLossesJob
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.release.canary_file import CanaryFile
from nomoat.server.release.canary_gate import (
    AnswerReading,
    CanaryRule,
    SecretReading,
    faults,
    given_away,
)
from nomoat.server.release.releasing import (
    ReleaseState,
    awaiting_canaries,
    newest_released,
    order,
    orders,
)

log = logging.getLogger(__name__)

ReadRows = Callable[[RowLossesJob], Future[tuple[RowReading, ...]]]
REFERENCES = 63  # phrases that each secret is compared with
REMEMBERED = 500  # versions
NAMED = 2  # faults in a reason


@dataclass(frozen=True)
class CanaryChecks:
    """Canaries, who reads rows (a worker process), and how long each adapter may take."""

    canaries: CanaryFile
    read: ReadRows
    seconds: float

    def of(self, spec: AdapterSpec, vector: Vector | None) -> CanaryMeasurement:
        """Measure an adapter, or the base alone."""
        rows = [answer.row() for answer in self.canaries.answers]
        for secret in self.canaries.secrets:
            rows += rows_to_measure(secret, REFERENCES)
        found = self.read(RowLossesJob(tuple(rows), spec, vector, self.seconds)).result()
        expected = self.canaries.answers
        answers = {one.key: -row.nats for one, row in zip(expected, found, strict=False)}
        rest = [row.loss for row in found[len(expected) :]]
        each = REFERENCES + 1
        bits = {
            secret.tag: exposure(losses[0], losses[1:]).bits
            for place, secret in enumerate(self.canaries.secrets)
            if len(losses := rest[place * each : (place + 1) * each]) == each
        }
        return CanaryMeasurement(answers, bits)


@dataclass(frozen=True, slots=True)
class CanaryMeasurement:
    """Of one adapter. answers: key → log-probability, nats; bits: tag → exposure."""

    answers: Mapping[str, float]
    bits: Mapping[str, float]


def check_canaries(community: OpenCommunity, checks: CanaryChecks, now: int) -> None:
    """Measure what waits for it; hold what is found, unless a person has said something of it."""
    for number in sorted(awaiting_canaries(community)):
        try:
            _check(community, checks, community.versions.get(number), now)
        except NomoatError as problem:
            log.warning(
                "version %d: canaries were not measured, it stays a candidate: %s", number, problem
            )


def _check(community: OpenCommunity, checks: CanaryChecks, record: SignedVersion, now: int) -> None:
    number, settings = record.version.number, community.settings.release
    rule = CanaryRule(settings.canary_bits, settings.canary_fall)
    adapter = community.versions.load(record)
    measured = checks.of(adapter.spec, adapter.vector)
    canaries = checks.canaries
    before = _before(community, checks, number, now)
    answers = {
        f"the answer of line {one.line}": AnswerReading(
            measured.answers[one.key], [old[one.key] for old in before if one.key in old]
        )
        for one in canaries.answers
        if one.key in measured.answers
    }
    secrets = {f"secret {tag}": SecretReading(bits) for tag, bits in measured.bits.items()}
    if any(given_away(one, rule) for one in secrets.values()):
        bare = checks.of(adapter.spec, None).bits
        secrets = {
            f"secret {tag}": SecretReading(bits, bare.get(tag))
            for tag, bits in measured.bits.items()
        }
    found = list(faults(secrets, answers, rule))
    asked = len(canaries.answers) + len(canaries.secrets)
    if (done := len(answers) + len(secrets)) < asked:
        found.append(
            f"{done} of {asked} were measured in release.canary_seconds = {checks.seconds:g}"
        )
    summary = _summary(secrets, answers, rule, found)
    _note(community, number, dict(measured.answers), summary, now)


def _note(
    community: OpenCommunity,
    number: int,
    answers: Mapping[str, float],
    summary: Mapping[str, Any],
    now: int,
) -> None:
    """Write down what was measured, and hold the version if something was found."""
    found = summary["faults"]
    reason = ("canaries: " + "; ".join(found[:NAMED]))[:200]
    with community.registrar.database.transaction():
        row = {"answers": json.dumps(answers), "summary": json.dumps(summary), "at": now}
        community.registrar.database.put("canary_checks", "number", number=number, **row)
        if found and number not in orders(community):
            order(community, number, ReleaseState.HELD, reason, now)
    if found:
        log.warning("version %d is held: %s", number, reason)


def _before(
    community: OpenCommunity, checks: CanaryChecks, number: int, now: int
) -> Sequence[Mapping[str, float]]:
    """Answers of earlier versions, oldest first; of the one given out, if it was not measured."""
    said = orders(community)
    sql = "SELECT number, answers FROM canary_checks WHERE number < ? ORDER BY number DESC LIMIT ?"
    rows = community.registrar.database.rows(sql, number, REMEMBERED)
    released = [n for n, word in said.items() if word.state is ReleaseState.RELEASED and n < number]
    begun = max(released, default=0)
    kept: dict[int, Mapping[str, float]] = {
        n: json.loads(answers)
        for n, answers in rows
        if n >= begun and (n not in said or said[n].state is not ReleaseState.HELD)
    }
    known = frozenset().union(*kept.values())
    standing = newest_released(community, now)
    if standing.version.number < number and any(
        one.key not in known for one in checks.canaries.answers
    ):
        adapter = community.versions.load(standing)
        kept[standing.version.number] = checks.of(adapter.spec, adapter.vector).answers
    return [kept[n] for n in sorted(kept)]


def _summary(
    secrets: Mapping[str, SecretReading],
    answers: Mapping[str, AnswerReading],
    rule: CanaryRule,
    found: Sequence[str],
) -> dict[str, Any]:
    return {
        "secrets": len(secrets),
        "bits": round(max((one.bits for one in secrets.values()), default=0.0), 2),
        "bits_allowed": rule.bits,
        "answers": len(answers),
        "fall": round(min(1e9, max((one.fall for one in answers.values()), default=0.0)), 2),
        "fall_allowed": rule.fall_nats,
        "faults": list(found),
    }
