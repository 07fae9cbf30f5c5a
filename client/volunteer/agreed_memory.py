"""The memory that an agreement comes to on this machine: the sheet says it, and it binds."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from nomoat.aggregation.errors import DoesNotFit
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.free_memory import MemoryBound, free_memory, place_of
from nomoat.client.membership import agreement
from nomoat.client.membership.agreement import Agreement
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training import community_fit

ANY = 1 << 62  # bytes


def with_memory(
    agreed: Agreement, info: CommunityInfo, settings: VolunteerSettings, rank: int | None = None
) -> Agreement:
    """The agreement, with the memory that its figures take here, planned for what is free now.

    rank: modules this machine trains at most; None: as many as its settings say. Where what is
    free does not do (a worker of ours has it, or the adapter is still to grow), it is planned as if
    it did; nothing is stated for a family of models whose need cannot be predicted.
    """
    asked = replace(
        info,
        batch_size=agreed.batch_size,
        seq_len=max(1, agreed.tokens_per_step // agreed.batch_size),
        adapter_values=agreed.adapter_values if agreed.signs_values else info.adapter_values,
    )
    if rank is None:
        rank = MAX_RANK if settings.rank == "auto" else settings.rank
    bits = settings.machine.base_bits
    machine = settings.machine
    now = free_memory(settings.device, machine.max_vram_share or 1.0, layout=machine.layout)
    cards = tuple((ANY, whole) for _, whole in now.cards)
    for memory in (now, replace(now, free_bytes=ANY, cards=cards)):
        with contextlib.suppress(DoesNotFit):
            needed = community_fit.needed_bytes(asked, settings.base, memory, bits, rank)
            if needed is not None:
                return replace(agreed, memory_bytes=needed, memory_on=place_of(now, bits))
            break
    return replace(agreed, memory_bytes=0, memory_on="")


def memory_of(folder: CommunityFolder) -> MemoryBound | None:
    """Read the memory that was agreed to; `nomoat agree` may have changed it since."""
    return agreement.load(folder.root, folder.info()).memory


def in_words(agreed: Agreement, before: Agreement) -> str:
    """Say what becomes of the memory, for a line of changes; empty if nothing does."""
    if agreed.memory_bytes == before.memory_bytes or not agreed.memory_bytes:
        return ""
    old = f"{before.memory_bytes / 1e9:.1f} -> " if before.memory_bytes else ""
    return f"; GB of memory in training {old}{agreed.memory_bytes / 1e9:.1f}"
