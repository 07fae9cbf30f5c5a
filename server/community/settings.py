"""Settings of a community's owner: community.toml, checked key by key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tomlkit
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.privacy.plan import Budget, check
from nomoat.aggregation.protocol.lineage import VersionNoise
from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms
from nomoat.aggregation.secagg.audit.sketch import WORDS
from nomoat.aggregation.secagg.thresholds import assume, thresholds
from nomoat.server.community.membership_rules import Admission
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.machines.patience import Patience
from nomoat.server.rounds.settings import (
    AdapterSettings,
    FederationSettings,
    RoundSettings,
    SettingsTable,
    TrainingSettings,
)
from nomoat.storage.settings import FileSettings

Seconds = Annotated[float, Field(gt=0, le=30 * 86_400, description="Seconds.")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class CommunitySettings(SettingsTable):
    """The community's name, and how one is admitted to it."""

    name: str = Field(min_length=1, max_length=80)
    about: Annotated[str, Field(max_length=2000)] = ""
    admission: Admission = Admission.OPEN


class BaseModelSettings(SettingsTable):
    """The base model, named by the content of its files.

    left_out: its parts that carry no adapter, as the card names them.
    """

    model: str = Field(min_length=1, max_length=200)
    folder: Path  # where this machine has it
    license: Annotated[str, Field(max_length=80)] = ""
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    left_out: str = ""


class CommunityRoundSettings(RoundSettings):
    """The course of rounds in a deployment. Times are seconds."""

    min_reports: Annotated[
        int,
        Field(ge=0, le=10_000, description="Fewer abandon a round; 0: as many as min-volunteers."),
    ] = 0
    min_volunteers: Annotated[
        int, Field(ge=2, le=10_000, description="Online before a round opens.")
    ] = 2
    round_every: Annotated[
        float, Field(ge=0, le=30 * 86_400, description="Seconds between two rounds, at least.")
    ] = 0.0
    max_rounds: Count = 100
    train_deadline: Seconds = 3600.0
    aggregate_deadline: Seconds = 300.0
    evaluate_deadline: Seconds = 600.0
    patience: Annotated[
        float, Field(gt=0, le=30 * 86_400, description="Seconds a volunteer may vanish.")
    ] = 120.0
    allow_weak: Annotated[bool, Field(description="Accept fewer than 8.")] = False
    seed: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def least_reports(self) -> int:
        """Fewer valid reports than this abandon a round."""
        return max(2, self.min_reports) if self.min_reports else self.min_volunteers

    @property
    def least_present(self) -> int:
        """Fewer willing volunteers than this open no round: it would come to nothing."""
        return max(self.min_volunteers, self.least_reports)


class PrivacySettings(SettingsTable):
    """Noise in every sum, by what it is to come to for each volunteer; epsilon 0: none.

    participations: sums that a volunteer is in, ever. min_gap: rounds from one to its next.
    """

    epsilon: Annotated[float, Field(ge=0, le=1000)] = 0.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    participations: Annotated[int, Field(ge=1, le=100_000)] = 10
    min_gap: Annotated[int, Field(ge=1, le=100_000)] = 1

    @property
    def budget(self) -> Budget | None:
        """The goal, None without noise."""
        if not self.epsilon:
            return None
        return Budget(self.epsilon, self.delta, self.participations)

    @property
    def noise(self) -> VersionNoise | None:
        """The noise of each version, None without any."""
        if (budget := self.budget) is None:
            return None
        return VersionNoise(budget.noise, self.epsilon, self.delta, self.participations)


class ReleaseSettings(SettingsTable):
    """The way of an accepted version to the world. delay: seconds after it was accepted.

    rollback_after: so many accepted versions in a row whose loss is above the best's by more than
    `rollback_rise` (relative) are gone back from; 0: never. scan_seconds: the time in which texts
    are tried that may be triggers, before a version is given out; 0: none. scan_texts: some more.
    canary_seconds: the time in which canaries.jsonl is measured of a version, 0: it is not;
    canary_bits, canary_fall: what is allowed (server/release/canary_gate.py).
    """

    by: Literal["gate", "person"] = "gate"
    delay: Annotated[float, Field(ge=0, le=365 * 86_400)] = 0.0
    rollback_after: Annotated[int, Field(ge=0, le=10_000)] = 0
    rollback_rise: Annotated[float, Field(ge=0, le=10)] = 0.01
    scan_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    scan_texts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=100)
    ] = ()
    canary_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    canary_bits: Annotated[float, Field(gt=0, le=30)] = 10.0
    canary_fall: Annotated[float, Field(gt=0, le=1000)] = 3.0


class ServerSettings(SettingsTable):
    """The address the coordinator listens on, and the one it is reached by from outside.

    also: more addresses it is reached at, or will be; members are told of them. proxies: addresses
    and networks whose X-Forwarded-For is believed. port_processes: so many hold the connections,
    before the one that runs rounds; 0: that one does.
    """

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8443
    address: Annotated[str, Field(max_length=260)] = "localhost:8443"
    also: Annotated[tuple[Annotated[str, Field(max_length=260)], ...], Field(max_length=3)] = ()
    proxies: tuple[Annotated[str, Field(max_length=60)], ...] = ()
    port_processes: Annotated[int, Field(ge=0, le=64)] = 0


class WatchSettings(SettingsTable):
    """The ways to watch a community while it is up. hooks, notify: URLs that are told of events.

    traces: the OTLP/HTTP endpoint that traces of rounds are sent to, "" for none.
    """

    web: bool = True
    web_host: Annotated[str, Field(max_length=260)] = "127.0.0.1"
    web_port: Annotated[int, Field(ge=0, le=65_535)] = 8444
    metrics_host: Annotated[str, Field(max_length=260)] = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0  # none
    log: bool = True
    log_megabytes: Annotated[int, Field(ge=1, le=10_000)] = 10
    hooks: tuple[Annotated[str, Field(max_length=2000, pattern=r"^https?://")], ...] = ()
    notify: tuple[Annotated[str, Field(max_length=2000, pattern=r"^[a-z0-9]+://")], ...] = ()
    traces: Annotated[str, Field(max_length=2000, pattern=r"^(https?://.*)?$")] = ""


class Settings(FileSettings):
    """All of community.toml."""

    model_config = SettingsConfigDict(
        env_prefix="NOMOAT_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    community: CommunitySettings
    base: BaseModelSettings
    adapter: AdapterSettings = AdapterSettings()
    rounds: CommunityRoundSettings
    training: TrainingSettings = TrainingSettings()
    privacy: PrivacySettings = PrivacySettings()
    release: ReleaseSettings = ReleaseSettings()
    server: ServerSettings = ServerSettings()
    watch: WatchSettings = WatchSettings()

    @property
    def chosen(self) -> FederationSettings:
        """The set as a simulation has it, too; ranks are the volunteers' own affair."""
        return FederationSettings(self.adapter, self.training, self.rounds, self.rounds.max_rounds)

    @property
    def method(self) -> AnyMethod:
        """The method that runs; UsageError if the choices do not go together."""
        return self.chosen.method()

    def privacy_terms(self) -> PrivacyTerms:
        """The terms of every sum, unsigned."""
        audited, privacy = self.rounds.audit and self.rounds.secure, self.privacy
        if (budget := privacy.budget) is None:
            return PrivacyTerms(audit_words=WORDS if audited else 0)
        return PrivacyTerms(
            0, budget.noise, budget.epsilon, budget.delta, budget.participations, privacy.min_gap
        )

    def check_privacy(self, values: int, bounded: bool) -> None:
        """UsageError if noise, or an audit, cannot do what it is asked for.

        values: of an update. bounded: there is a bound on updates that both are measured by.
        """
        budget, rounds = self.privacy.budget, self.rounds
        if rounds.audit and rounds.secure and not bounded:
            raise UsageError(
                "rounds.audit: needs rounds.norm_bound, or rows of the coordinator's own"
            )
        if rounds.sessions > 1 and not bounded:
            raise UsageError(
                "rounds.sessions: sums are told apart by their size: needs rounds.norm_bound, "
                "or rows of the coordinator's own"
            )
        if budget is None:
            return
        for wrong, why in (
            (rounds.sessions > 1, "noise hides which of several sums is bad: rounds.sessions = 1"),
            (not rounds.secure, "noise is added under masks: rounds.secure = true"),
            (
                rounds.audit,
                "audits of single updates and noise exclude each other",
            ),
            (self.method.traits.exchanges > 1, f"{self.method.name} sums an update twice"),
            (
                not bounded,
                "noise needs rounds.norm_bound, or rows of the coordinator's own",
            ),
        ):
            if wrong:
                raise UsageError(f"privacy.epsilon: {why}")
        fewest = rounds.least_reports
        needed = thresholds(fewest, assume(fewest))
        check(budget, values, self.adapter.rank, fewest, needed.survivors - needed.corrupt)

    def federation(self) -> Federation:
        """The federation the coordinator runs; UsageError if its choices do not go together."""
        rounds = self.rounds
        return replace(
            self.chosen.federation(bytes.fromhex(self.base.hash), bytes.fromhex(rounds.seed)),
            train_deadline_s=rounds.train_deadline,
            aggregate_deadline_s=rounds.aggregate_deadline,
            evaluate_deadline_s=rounds.evaluate_deadline,
            noise_multiplier=0.0 if self.privacy.budget is None else self.privacy.budget.noise,
            patience=Patience(),
            spares=True,
        )


COMMENTS = {
    "watch": (
        "web: a page on web_host:web_port (another port if that is taken) while the community is "
        "up.\nmetrics_port: Prometheus's text format on metrics_host; 0: none.\n"
        "log: log/events.jsonl, four files of log_megabytes at most.\n"
        "hooks: URLs that get each event as JSON, signed (keys/hooks.key).\n"
        "traces: an OTLP/HTTP endpoint (…/v1/traces) that gets traces (needs OpenTelemetry).\n"
        "notify: Apprise's URLs that get a sentence for people (pip install apprise)."
    ),
    "community": "Who you are. admission: open (an invitation is enough) or approve.",
    "base": "The base model every volunteer must have: `hash` is over its weights and tokenizer.",
    "adapter": "The adapter's shape; fixed when the community was made.",
    "rounds": (
        "A round opens when min_volunteers are online and round_every seconds have passed; fewer\n"
        "reports than min_reports (0: as many as min_volunteers) abandon it.\n"
        "secure: updates are masked, so that only their sum is ever seen; below 8 volunteers the "
        "mask is weak\nand both sides have to allow_weak.\n"
        "Times are seconds; deadlines end earlier for the last few once most have answered.\n"
        "patience: how long a volunteer may vanish before a round goes on without it.\n"
        "seed makes cohorts and shuffling reproducible; it is no secret.\n"
        "personal: none, local-B (only A is averaged) or adapter (each trains one more, for "
        "itself).\nserver_optimizer: plain, momentum, fedadam, fedyogi; server_lr 0 is its usual.\n"
        "clip: bound on each value of an update; 0 is what training can reach.\n"
        "sessions: after three lost rounds in a row so many sums a round, over random parts of at "
        "least\nmin_reports, and a bad one is left out; smaller sums tell more. 1: always one."
    ),
    "training": (
        "What each volunteer does in a round. lr_schedule (constant, cosine, warmup) runs over\n"
        "max_rounds; prox is FedProx's; optimizer_state: reset or keep AdamW's moments each round\n"
        "(under fedplora, volunteers of a lower rank train other modules each time and keep none)."
    ),
    "privacy": (
        "Differential privacy for each volunteer; epsilon 0: none. With it every volunteer adds\n"
        "its share of noise under its mask, and is in `participations` sums at most, ever.\n"
        "It takes hundreds of volunteers in each sum; up says which rank or how many would do."
    ),
    "release": (
        "An accepted version is a candidate. by: gate (released when it was accepted) or person\n"
        "(nomoat adapter release N); delay: seconds after it was accepted, at least.\n"
        "rollback_after: so many versions in a row that measure worse than the best by more than\n"
        "rollback_rise are gone back from; 0: never.\n"
        "scan_seconds: texts are tried so long on each version against the one given out, in rows\n"
        "of the community's own (scan_texts: some more); one whose answer changed is held.\n"
        "canary_seconds: so long canaries.jsonl, which lies beside this file, is measured of each\n"
        'version: {"tag", "secret"} is a planted phrase (nomoat data canary); no more than\n'
        'canary_bits of it may be given away; {"prompt", "answer"}: the log-probability of an\n'
        "answer may fall by canary_fall nats; a version beyond that is held.\n0 seconds: none."
    ),
    "server": (
        "address is what invitations name: it must be reachable from outside.\n"
        "also: more addresses, before a move the next one: members remember them, signed, and look "
        "there\nwhen address is silent.\n"
        "proxies: reverse proxies before us, addresses or networks; their X-Forwarded-For is "
        "believed.\n"
        "port_processes: for thousands of volunteers, so many processes hold their connections "
        "(Linux); 0: none."
    ),
}


def as_toml(settings: Settings) -> str:
    """community.toml with its comments."""
    document = tomlkit.document()
    document.add(tomlkit.comment("A nomoat community. NOMOAT_<TABLE>__<KEY> and flags go before."))
    for name, values in settings.model_dump(mode="json").items():
        table = tomlkit.table()
        for line in COMMENTS[name].splitlines():
            table.add(tomlkit.comment(line))
        for key, value in values.items():
            if value is not None:  # left open
                table.add(key, value)
        document.add(tomlkit.nl())
        document.add(name, table)
    return tomlkit.dumps(document)
