"""A community's training fitted to this machine, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from nomoat.aggregation import methods
from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.machine.free_memory import FreeMemory, MemoryBound, all_gpus, free_memory
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training.memory_fit import (
    Bits,
    Workload,
    bits_that_fit,
    frozen_bytes,
    largest_rank,
    planned,
    planned_or_cut,
    quicker_in_16,
)
from nomoat.lora.device.present import names
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.model.files import config, resolve
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape


def line(
    info: CommunityInfo,
    base: str,
    memory: FreeMemory,
    bits: Bits | None = None,
    most: int = MAX_RANK,
) -> str:
    """Say what training at most `most` modules takes here, the base in `bits`, for the sheet.

    DoesNotFit says what would fit; nothing is known of an unknown family of models.
    """
    free = f"{memory.free_bytes / 1e9:.1f} GB free"
    folder = resolve(base)
    try:
        workload = announced(info, folder, most)
        found = planned_or_cut(workload, folder, memory, bits)
    except DoesNotFit as problem:
        raise _refused(info, memory, problem) from None
    except UsageError:
        here = f"{memory.device}, {free}" if memory.measured else memory.device
        return f"{here}; what this model takes is not known before it is loaded"
    if bits is None:
        held = f"; {words}" if (words := memory.layout.in_words) else ""
    else:
        held = _held(bits, workload, folder, memory)
    needed, seq_len = found.predicted.total / 1e9, found.training.seq_len
    cut = f"; rows are cut at {seq_len} tokens" if seq_len < info.seq_len else ""
    if memory.layout.over_gpus:
        free = f"{free}, at most {found.largest_bytes / 1e9:.1f} GB of one GPU"
    return f"{memory.device}: training takes about {needed:.1f} GB of {free}{held}{cut}"


def _held(bits: Bits, workload: Workload, folder: Path, memory: FreeMemory) -> str:
    """Say in how many bits the base is held, and why so if not by its owner's choice alone."""
    how = f", {words}" if (words := memory.layout.in_words) else ""
    said = f"; the base is held in {bits} bits{how}"
    try:
        planned(workload, folder, memory, None)
    except DoesNotFit:
        usual = 16 if memory.host.quantises else 32
        return f"{said}, as it does not fit in {usual}"
    if bits == 16 and quicker_in_16(folder, memory):
        return f"{said}, in which this processor trains faster"
    return said


def needed_bytes(
    info: CommunityInfo, base: str, memory: FreeMemory, bits: Bits | None, most: int = MAX_RANK
) -> int | None:
    """Return the bytes that training takes here, in the pieces that fit, what is frozen with it.

    None for an unknown family of models; DoesNotFit if nothing fits.
    """
    folder = resolve(base)
    try:
        work = announced(info, folder, most)
        found = planned_or_cut(work, folder, memory, bits)
        return found.predicted.total + frozen_bytes(work, folder)
    except UsageError:
        return None


def held(
    info: CommunityInfo, base: str, device: str, wanted: Bits | None, most: int = MAX_RANK
) -> tuple[Layout, Bits | None]:
    """The base's layout and bits (None: the usual) that are best here: whole, else laid out.

    wanted: bits that the owner has chosen; none else are tried. DoesNotFit, about the base held
    whole, if nothing fits.
    """
    problem: DoesNotFit | None = None
    for layout in (WHOLE, *_last_resorts(device)):
        memory = free_memory(device, layout=layout)
        try:
            if wanted is None:
                return layout, bits(info, base, memory, most)
            planned_or_cut(announced(info, resolve(base), most), resolve(base), memory, wanted)
            return layout, wanted
        except UsageError:
            return WHOLE, wanted
        except DoesNotFit as here:
            problem = problem or here
        if memory.device != "cuda":
            break
    if wanted is not None:  # `line` says it in its own words
        return WHOLE, wanted
    raise DoesNotFit(f"{problem}{_shared_out(info, base, device, most)}")


def _shared_out(info: CommunityInfo, base: str, device: str, most: int) -> str:
    """Say what would fit if more GPUs of this machine were listed; "" if that would not, either."""
    every = all_gpus()
    if not every or len(names(every)) <= len(names(device)):
        return ""
    try:
        held(info, base, every, None, most)
    except DoesNotFit:
        return ""
    return f"; over all GPUs of this machine it fits: --device {every}"


def _last_resorts(device: str) -> Iterator[Layout]:
    """Ways that cost speed, the least first: an embedding beside the GPU, layers on one each."""
    yield Layout(embedding_in_ram=True)
    if len(names(device)) > 1:
        yield Layout(over_gpus=True)
        yield Layout(over_gpus=True, embedding_in_ram=True)


def bits(info: CommunityInfo, base: str, memory: FreeMemory, most: int = MAX_RANK) -> Bits | None:
    """In how many bits the base is best held here, None for the usual; DoesNotFit if in none."""
    folder = resolve(base)
    try:
        return bits_that_fit(announced(info, folder, most), folder, memory)
    except UsageError:
        return None
    except DoesNotFit as problem:
        raise _refused(info, memory, problem) from None


def rank(info: CommunityInfo, base: str, memory: FreeMemory, bits: Bits | None) -> int:
    """The number of modules this machine can train: `--rank auto`.

    What is more than the community's is not used.
    Raises DoesNotFit if not even rank 1 fits, UsageError if the model's need cannot be predicted.
    """
    folder = resolve(base)
    try:
        return largest_rank(announced(info, folder), folder, memory, bits)
    except UsageError as problem:
        raise UsageError(f"{problem}; give --rank a number") from None


def rank_of(
    settings: VolunteerSettings, info: CommunityInfo, bound: MemoryBound | None = None
) -> int:
    """The rank its owner set, or the largest that fits what memory is free now, and agreed to."""
    if settings.rank != "auto":
        return settings.rank
    machine = settings.machine
    memory = free_memory(settings.device, machine.max_vram_share or 1.0, layout=machine.layout)
    bits_now = settings.machine.base_bits
    if bound is not None:
        memory = bound.within(memory, bits_now)
    return rank(info, settings.base, memory, bits_now)


def check_rank(info: CommunityInfo, base: str, most: int) -> None:
    """UsageError if the community's method cannot do with volunteers of this rank."""
    if methods.get(info.method).traits.mixed_ranks:
        return
    try:
        needed = announced(info, resolve(base)).rank
    except UsageError:
        return
    if most < needed:
        raise UsageError(
            f"{info.name} works with {info.method}, which needs rank {needed} of everyone, not "
            f"{most}; leave out --rank"
        )


def announced(info: CommunityInfo, folder: Path, most: int = MAX_RANK) -> Workload:
    """The work that `info` announces, of at most `most` modules, the rest frozen.

    The rank is not announced: it is what makes an adapter of that many values on all linear maps.
    UsageError for an unknown family of models.
    """
    per_rank = ModelShape.from_config(config(folder)).adapter_parameters(1, (ALL_LINEAR,))
    rank = max(1, math.ceil(info.adapter_values / per_rank))
    trained = min(rank, most)
    return Workload(info.batch_size, info.seq_len, trained, frozen_rank=rank - trained)


def _refused(info: CommunityInfo, memory: FreeMemory, problem: DoesNotFit) -> DoesNotFit:
    return DoesNotFit(f"training for {info.name} does not fit this {memory.device}: it {problem}")
