"""`nomoat init`: a community's folder, its base model examined and its first adapter made."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.lora.formats import read
from nomoat.lora.jobs import SpecJob
from nomoat.lora.model_files import content_hash, resolve
from nomoat.lora.pool import Pool
from nomoat.lora.spec import Targets, initial_adapter
from nomoat.server.community import (
    AdapterShape,
    Base,
    Community,
    Folder,
    Rounds,
    Server,
    Settings,
    Training,
    create,
)
from nomoat.server.registry import Measured, Registry
from nomoat.server.store import Store


@dataclass(frozen=True)
class Wanted:
    """What `nomoat init` was asked for. `folder` holds the base model on this machine, or its hub
    id stands in `model`.
    """

    community: Community
    model: str
    license: str
    adapter: AdapterShape
    rounds: dict[str, object]
    training: dict[str, object]
    server: Server
    evaluation: Path | None


def make(
    root: Path, wanted: Wanted, now: datetime.datetime, entropy: Callable[[int], bytes]
) -> Folder:
    """Make a community in `root`: examined base, keys, certificates, version 0.

    UsageError for what cannot be combined, BadData for a base or an evaluation file that is none;
    nothing is written before all of it has been checked.
    """
    folder = Folder(root)
    if folder.settings.exists():
        raise UsageError(f"{root} holds a community already")
    settings = _settings(wanted, entropy)
    if wanted.evaluation is not None and not read(wanted.evaluation).conversations:
        raise BadData(f"{wanted.evaluation}: no row in it can be used")
    shape = settings.adapter
    targets: Targets = "all-linear"
    if shape.targets != "all-linear":
        targets = tuple(shape.targets.split(","))
    with contextlib.closing(Pool(str(settings.base.folder), 1)) as pool:
        spec = pool.submit(SpecJob(shape.rank, shape.alpha, targets)).result()
    key = create(folder, settings, now, entropy(32))
    if wanted.evaluation is not None:
        shutil.copyfile(wanted.evaluation, folder.evaluation)
    seed = hashlib.sha256(b"nomoat adapter\0" + bytes.fromhex(settings.rounds.seed)).digest()
    adapter = initial_adapter(spec, seed)
    registry = Registry(
        Store(folder.database), folder.adapters, key, bytes.fromhex(settings.base.hash)
    )
    note = "the base model: nothing trained yet"
    measured = Measured(0, settings.rounds.method, (), None, None, note)
    registry.add(adapter, measured, int(now.timestamp()))
    registry.store.close()
    return folder


def _settings(wanted: Wanted, entropy: Callable[[int], bytes]) -> Settings:
    base_folder = resolve(wanted.model)
    rounds = Rounds(**{"seed": entropy(32).hex(), **wanted.rounds})  # type: ignore[arg-type]
    if rounds.secure and rounds.least_reports < WEAK_BELOW and not rounds.allow_weak:
        raise UsageError(
            f"below {WEAK_BELOW} volunteers masks are weak: raise --min-volunteers (or "
            "--min-reports), or say --allow-weak (every volunteer has to agree to it, too)"
        )
    base = Base(
        model=wanted.model if base_folder != Path(wanted.model).expanduser() else base_folder.name,
        folder=base_folder.resolve(),
        license=wanted.license,
        hash=content_hash(base_folder).hex(),
        bytes=sum(file.stat().st_size for file in base_folder.iterdir() if file.is_file()),
    )
    settings = Settings(
        community=wanted.community,
        base=base,
        adapter=wanted.adapter,
        rounds=rounds,
        training=Training(**wanted.training),  # type: ignore[arg-type]
        server=wanted.server,
    )
    settings.choices().check()
    return settings
