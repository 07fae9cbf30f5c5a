"""The base model of a community that is about to be joined: the right one, and one that trains.

A coordinator names its base, but nothing here is opened because it was named: only the owner says
which folder is read and which id is fetched, with --base or by answering.
"""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.model.context import check_length, context_length
from nomoat.lora.model.examination import Examined
from nomoat.lora.model.files import BUILT_IN, HUB_ID, config, content_hash, resolve
from nomoat.lora.model.shape import GATED_FAMILIES
from nomoat.lora.workers.examining import examinations, examined, remembered
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool

ANY_RANK = 1  # which layers can be trained does not depend on it


def asked_for(info: CommunityInfo) -> UsageError:
    """Return the error of a `join` that does not say where the base model is."""
    name = one_line(info.base_model)
    fetch = f", or --base {name} to take it from the Hub" if fetchable(info) else ""
    if info.base_model in BUILT_IN:
        fetch = f", or --base {name}, which is known here by that name"
    return UsageError(
        f"{info.name} builds on {name!r}: say where that model is here with --base FOLDER{fetch}"
    )


def fetchable(info: CommunityInfo) -> bool:
    """Tell whether the base's name can only be an id on the Hub, and no place on this machine."""
    name = info.base_model
    return HUB_ID.fullmatch(name) is not None and "/" in name and not Path(name).exists()


def check_base(base: str, wanted: bytes, name: str) -> None:
    """Raise BadData unless the base model here is, byte for byte, the community's."""
    found = content_hash(resolve(base))
    if found != wanted:
        raise BadData(
            f"{base} is not the base model of {name}: its content hash is {found.hex()[:16]}…, "
            f"the community's {wanted.hex()[:16]}…; get the right one and say --base"
        )


def check_trains(
    info: CommunityInfo, base: str, device: str, bits: int | None = None, layout: Layout = WHOLE
) -> str:
    """Return a sentence on the parts of the base that carry no adapter, found by attaching one.

    In a process of its own that is asked nothing and has a time limit, once for each base: what is
    found is kept in this account's cache. A known family that is held in 4 or 8 bits, or laid out,
    is not loaded for it: its layers are known. Raises BadData or UsageError, in one line, if the
    base cannot be trained, or reads shorter rows than the community's.
    """
    folder = resolve(base)
    known = config(folder)
    check_length(context_length(known), info.seq_len)
    if (bits in (4, 8) or layout != WHOLE) and known.get("model_type") in GATED_FAMILIES:
        return ""

    def examine() -> Examined:
        with Pool(base, 1, device, shared=False, bits=bits, base_hash=info.base_hash) as pool:
            return examined(pool.submit(SpecJob(ANY_RANK, 1.0)))

    found = remembered(examinations(), info.base_hash, examine)
    check_length(found.context, info.seq_len)
    return found.left_out
