"""The meaning of --adapter: a run, a community, a PEFT folder, a version, or nothing at all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from nomoat.aggregation.errors import BadData, NotJoined, UsageError
from nomoat.client.home import CommunityFolder, Home
from nomoat.lora.model.adapter_folder import CONFIG_FILE
from nomoat.lora.model.bases import pocket
from nomoat.lora.model.files import content_hash, resolve
from nomoat.server.community.opened import OpenCommunity
from nomoat.serving.sources.base_only import BaseOnly
from nomoat.serving.sources.community import CoordinatorsCommunity
from nomoat.serving.sources.membership import JoinedCommunity
from nomoat.serving.sources.peft_folder import PeftFolder, base_of
from nomoat.serving.sources.source import BASE, COMMUNITY, PERSONAL, BaseRef, Source

VERSION: Final = re.compile(r"(community@)?\d{1,7}|community|personal")


@dataclass(frozen=True)
class Wanted:
    """The options of a command. adapter: a folder or a version; base: where the base is."""

    adapter: str | None = None
    community: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Found:
    """A source, the voice that is meant when none is named, and where the base is."""

    source: Source
    voice: str
    base: BaseRef


def find(wanted: Wanted, here: Path, home: Home) -> Found:
    """The source that is meant; BadData or UsageError in one line if there is none.

    here: the folder one is in, which counts if it is a community's or a run's and nothing is named.
    """
    if wanted.adapter is None and wanted.community is None and wanted.base is not None:
        base = _located(BaseRef(wanted.base, wanted.base))
        return Found(BaseOnly(Path(wanted.base).name, base), BASE, base)
    source, voice = _find(wanted, here, home)
    base = source.base
    if wanted.base is not None:
        base = _located(replace(base, place=wanted.base, name=base.name or wanted.base))
    return Found(source, voice, base)


def _find(wanted: Wanted, here: Path, home: Home) -> tuple[Source, str]:
    version = wanted.adapter if VERSION.fullmatch(wanted.adapter or "") else None
    if wanted.adapter is not None and version is None:
        return _newest(_folder(Path(wanted.adapter).expanduser(), wanted.base is not None))
    source = None
    if wanted.community is None:
        source = _known(here, wanted.base is not None)
    if source is None:
        try:
            source = JoinedCommunity(home.choose(wanted.community))
        except NotJoined as problem:
            raise NotJoined(
                f"{problem}; or name a run, a community's folder or a PEFT folder: --adapter FOLDER"
            ) from None
    if version is None:
        return _newest(source)
    return source, f"{COMMUNITY}@{version}" if version.isdecimal() else version


def _newest(source: Source) -> tuple[Source, str]:
    voices = source.voices()
    return source, next((name for name in (PERSONAL, COMMUNITY) if name in voices), BASE)


def _folder(folder: Path, base_given: bool) -> Source:
    if not folder.is_dir():
        raise UsageError(f"{folder} is neither a folder nor a version such as community@12")
    source = _known(folder, base_given)
    if source is None:
        raise BadData(
            f"{folder} is no run, no community's folder and no PEFT folder ({CONFIG_FILE})"
        )
    return source


def _known(folder: Path, base_given: bool) -> Source | None:
    """The source a folder is, if it is one."""
    if (folder / "community.toml").is_file():
        return CoordinatorsCommunity(OpenCommunity.open(folder))
    if (folder / CONFIG_FILE).is_file():
        base = BaseRef("", "") if base_given else _located(base_of(folder))
        return PeftFolder(folder, folder.resolve().name, base)
    if (folder / "config.toml").is_file() and (folder / "metrics.jsonl").is_file():
        return _run(folder)
    if (folder / "settings.toml").is_file() and (folder / "community.info").is_file():
        return JoinedCommunity(CommunityFolder(folder))
    return None


def _run(folder: Path) -> PeftFolder:
    """A simulation's folder."""
    adapter = folder / "adapter"
    if not (adapter / CONFIG_FILE).is_file():
        raise BadData(f"{folder} has no adapter yet: the run has not ended")
    try:
        config: Any = tomlkit.parse((folder / "config.toml").read_text("utf-8")).unwrap()
        model = str(config["scenario"]["model"])
        summary: Any = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, TOMLKitError):
        raise BadData(f"{folder} is not what a run left behind") from None
    said = base_of(adapter)
    sides = {"held-out loss": "community", "held-out loss of the base": "base"}
    measured = _numbers({name: _part(summary, side).get("loss") for name, side in sides.items()})
    each = _numbers(_part(_part(summary, "losses"), "community"))
    base = _located(replace(said, place=model))
    return PeftFolder(adapter, folder.resolve().name, base, measured, each)


def _part(found: Any, name: str) -> dict[str, Any]:
    part = found.get(name) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _located(base: BaseRef) -> BaseRef:
    """The pocket model is wherever this package is."""
    names = (pocket.NAME, pocket.EARLIER_NAME)
    return replace(base, place=str(pocket.FOLDER)) if base.place in names else base


def folder_of(base: BaseRef) -> Path:
    """The base's folder on this machine; BadData if it is not the one adapters were trained on."""
    folder = resolve(base.place)
    if base.hash and content_hash(folder) != base.hash:
        raise BadData(
            f"the base in {folder} is not the one the adapter was trained on "
            f"(content hash {base.hash.hex()[:12]}…); name that one with --base"
        )
    return folder
