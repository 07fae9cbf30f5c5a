"""Probe of bitsandbytes, which imports without complaint where it has no kernels."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import UsageError

if TYPE_CHECKING:
    from nomoat.lora.device.backends import Device


def check_bitsandbytes(what: str, device: Device) -> Any:
    """Return bitsandbytes; UsageError in one line if `what` cannot be had of it on `device`."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(f"{what} needs bitsandbytes: pip install bitsandbytes")
    if not device.quantises:
        raise UsageError(
            f"{what} cannot be had on {device.kind}, for which bitsandbytes has no kernels; "
            "leave out base_bits and adam_8bit in settings.toml, or use --device cpu"
        )
    try:
        found = importlib.import_module("bitsandbytes")
    except Exception as problem:
        raise UsageError(_broken(what, str(problem))) from problem
    if device.own_memory and not _has_kernels(found):
        raise UsageError(_broken(what, "it has no library for this torch's CUDA"))
    return found


def _has_kernels(bitsandbytes: Any) -> bool:
    """Look at the native library that it has loaded; a version that hides it is believed."""
    native = getattr(getattr(bitsandbytes, "cextension", None), "lib", None)
    return bool(getattr(native, "compiled_with_cuda", True)) if native is not None else True


def _broken(what: str, why: str) -> str:
    said = " ".join(why.split())[:120]
    return f"{what} needs bitsandbytes, which does not work here ({said}): python -m bitsandbytes"
