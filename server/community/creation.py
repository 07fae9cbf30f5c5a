"""`nomoat init`: a community's folder, its base model examined and its first adapter made."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol import origin as origins
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.aggregation.protocol.origin import Origin
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.model import left_out
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.model.files import BUILT_IN, config, content_hash, resolve
from nomoat.lora.model.shape import ALL_LINEAR
from nomoat.lora.model.usual_rate import usual_rate
from nomoat.lora.workers.examining import examined, remember
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
from nomoat.server.community.database import Database
from nomoat.server.community.evaluation_split import EvaluationSplit
from nomoat.server.community.folder import SEED_BYTES, Folder, create
from nomoat.server.community.row_length import evaluation_rows
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    ServerSettings,
    Settings,
)
from nomoat.server.community.versions import UNTRAINED, Provenance, VersionStore
from nomoat.server.engines.moving import check_free
from nomoat.server.rounds.cohort import seed_of
from nomoat.server.rounds.settings import AdapterSettings, TrainingSettings
from nomoat.storage.atomic import replacing
from nomoat.storage.drafts import filling


@dataclass(frozen=True)
class Tables:
    """The settings asked for in three tables of community.toml; the rest of them are defaults."""

    adapter: dict[str, Any]
    rounds: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class Beginning:
    """An adapter to begin with instead of an untrained one.

    place, name, license: of its base, as its source has them. origin: None if nobody signed it.
    """

    adapter: Adapter
    place: str
    name: str
    license: str
    base_hash: bytes
    origin: Origin | None

    @property
    def note(self) -> str:
        """The note of version 0."""
        if self.origin is not None:
            return self.origin.note
        return f"begun with an adapter nobody signed, digest {self.adapter.digest.hex()}"

    def check(self, base_hash: bytes, spec: AdapterSpec) -> None:
        """Raise BadData unless the adapter is one of this base, and of this shape."""
        if self.base_hash and self.base_hash != base_hash:
            raise BadData(
                "the base is not the one the adapter was trained on (content hash "
                f"{self.base_hash.hex()[:12]}…); name that one with --base"
            )
        own = self.adapter.spec
        if (own.layers, own.alpha, own.rslora) != (spec.layers, spec.alpha, spec.rslora):
            kind = "rsLoRA, " if own.rslora else ""
            raise BadData(
                f"the adapter to begin with has {kind}rank {own.rank}, alpha {own.alpha:g} on "
                f"{len(own.layers)} layers; this community would have rank {spec.rank}, alpha "
                f"{spec.alpha:g} on {len(spec.layers)}: leave out --rank, --alpha, --target-modules"
            )


@dataclass(frozen=True)
class NewCommunity:
    """A community as `nomoat init` is asked to make it. `model` is a folder on this machine or a
    hub id. beginning: None for an adapter that is not trained yet. database: PostgreSQL's URL.
    """

    community: CommunitySettings
    model: str
    license: str
    tables: Tables
    server: ServerSettings
    evaluation: Path | None
    seed: str | None = None
    beginning: Beginning | None = None
    database: str | None = None


@dataclass(frozen=True)
class Seeds:
    """Seeds of cohorts and shuffling, and of the first adapter: 32 bytes each."""

    federation: bytes
    adapter: bytes

    @classmethod
    def of(cls, text: str | None, entropy: Callable[[int], bytes]) -> Seeds:
        """From a number as `nomoat simulate` takes it, from 64 hex digits, or fresh.

        The same number gives the same federation as a simulation's. UsageError for anything else.
        """
        if text is not None and text.isdecimal() and int(text) < 2**63:
            number = int(text)
            return cls(seed_of(number, "federation"), seed_of(number, "adapter"))
        if text is not None and not re.fullmatch(r"[0-9a-f]{64}", text):
            raise UsageError(f"--seed {text!r}: give a number, or 64 hex digits")
        federation = entropy(SEED_BYTES) if text is None else bytes.fromhex(text)
        return cls(federation, hashlib.sha256(b"nomoat adapter\0" + federation).digest())


def make(
    root: Path,
    wanted: NewCommunity,
    now: datetime.datetime,
    entropy: Callable[[int], bytes],
    say: Callable[[str], None] = lambda _: None,
) -> Folder:
    """Make a community in `root`: examined base, keys, certificates, version 0.

    say: told what was chosen for the owner, and why. UsageError for what cannot be combined,
    BadData for a base or an evaluation file that is none; the folder is whole or not there.
    """
    folder = Folder(root)
    if folder.settings.exists():
        raise UsageError(f"{root} holds a community already")
    seeds = Seeds.of(wanted.seed, entropy)
    settings = _settings(wanted, seeds)
    shape, seq_len = settings.adapter, settings.training.seq_len
    job = SpecJob(shape.rank, shape.alpha, shape.targets, seq_len=seq_len)
    base_hash = bytes.fromhex(settings.base.hash)
    with Pool(str(settings.base.folder), 1, base_hash=base_hash) as pool:
        found = examined(pool.submit(job))
        settings = _noting(settings, left_out.line(found.left_out))
        if shape.targets == ALL_LINEAR:
            remember(base_hash, found)
        adapter = _first_adapter(wanted, settings, found.spec, seeds)
        rows = evaluation_rows(wanted.evaluation, seq_len, settings.base.folder, pool)
        for note in rows.notes:
            say(note)
        settings = _with_length(_with_rate(settings, say), rows.chosen.seq_len)
        evaluation = rows.dataset.conversations if rows.dataset else ()
        loss = _measure(evaluation, adapter, settings, pool) if evaluation else None
    with filling(root, folder.settings.name) as draft:
        key = create(Folder(draft), settings, now, entropy(32))
        if evaluation:
            write_jsonl(evaluation, Folder(draft).evaluation)
        first = FirstVersion(adapter, loss, now, wanted.beginning)
        _add_start(Folder(draft), settings, key, first)
        Folder(draft).send_records(wanted.database, key.public, entropy(8).hex(), now)
    return folder


def _first_adapter(
    wanted: NewCommunity, settings: Settings, spec: AdapterSpec, seeds: Seeds
) -> Adapter:
    if wanted.beginning is None:
        return initial_adapter(spec, seeds.adapter)
    wanted.beginning.check(bytes.fromhex(settings.base.hash), spec)
    return wanted.beginning.adapter


@dataclass(frozen=True)
class FirstVersion:
    """Version 0: what it holds, its loss on the evaluation split if there is one, and when."""

    adapter: Adapter
    loss: float | None
    now: datetime.datetime
    beginning: Beginning | None = None


def _add_start(folder: Folder, settings: Settings, key: SigningKey, start: FirstVersion) -> None:
    begun = start.beginning
    note = UNTRAINED if begun is None else begun.note
    if begun is not None and begun.origin is not None:
        with replacing(folder.origin) as file:
            file.write(origins.to_file(begun.origin))
    provenance = Provenance(0, settings.method.name, (), None, None, note, start.loss)
    with contextlib.closing(Database(folder.database)) as database:
        versions = VersionStore(database, folder.adapters, key, bytes.fromhex(settings.base.hash))
        versions.add(start.adapter, provenance, int(start.now.timestamp()))


def _noting(settings: Settings, parts: str) -> Settings:
    """The settings, with the parts of the base that carry no adapter: for the card."""
    base = settings.base.model_copy(update={"left_out": parts})
    return settings.model_copy(update={"base": base})


def _with_rate(settings: Settings, say: Callable[[str], None]) -> Settings:
    """The settings with the learning rate that suits the model, if it was left open."""
    if settings.training.learning_rate is not None:
        return settings
    chosen = usual_rate(config(settings.base.folder))
    say(f"learning rate {chosen.rate:g}: {chosen.reason}; --lr for another")
    training = settings.training.model_copy(update={"learning_rate": chosen.rate})
    return settings.model_copy(update={"training": training})


def _with_length(settings: Settings, seq_len: int) -> Settings:
    training = settings.training.model_copy(update={"seq_len": seq_len})
    return settings.model_copy(update={"training": training})


def _measure(
    rows: tuple[Conversation, ...], adapter: Adapter, settings: Settings, pool: Pool
) -> float:
    """Loss of the first version on the evaluation split; BadData if no row of it can be used."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.jsonl"
        write_jsonl(rows, file)
        return (
            EvaluationSplit(file, settings.training.settings("none"), pool)
            .measure(adapter)
            .result()
        )


def _settings(wanted: NewCommunity, seeds: Seeds) -> Settings:
    base_folder = resolve(wanted.model)
    tables, begun = wanted.tables, wanted.beginning
    rounds = CommunityRoundSettings(**{"seed": seeds.federation.hex(), **tables.rounds})
    if rounds.secure and rounds.least_reports < WEAK_BELOW and not rounds.allow_weak:
        raise UsageError(
            f"below {WEAK_BELOW} volunteers masks are weak: raise --min-volunteers (or "
            "--min-reports), or say --allow-weak (every volunteer has to agree to it, too)"
        )
    name = _name(wanted.model, base_folder)
    base = BaseModelSettings(
        model=name if begun is None else begun.name or name,
        folder=base_folder.resolve(),
        license=wanted.license or ("" if begun is None else begun.license),
        hash=content_hash(base_folder).hex(),
        bytes=sum(file.stat().st_size for file in base_folder.iterdir() if file.is_file()),
    )
    own = {} if begun is None else _shape(begun.adapter.spec)
    settings = Settings(
        community=wanted.community,
        base=base,
        adapter=AdapterSettings(**own | tables.adapter),
        rounds=rounds,
        training=TrainingSettings(**tables.training),
        server=wanted.server,
    )
    _ = settings.method  # refused now, not at the first round
    check_free(wanted.database)
    return settings


def _name(model: str, folder: Path) -> str:
    """Return the name of a base: its folder's, or the id it was asked for by."""
    here = model not in BUILT_IN and Path(model).expanduser().exists()
    return folder.name if here else model


def _shape(spec: AdapterSpec) -> dict[str, Any]:
    """The adapter table of a community that begins with an adapter of this shape."""
    return {"rank": spec.rank, "alpha": spec.alpha, "target_modules": spec.target_modules}
