"""A processor's own kinds of number, asked without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")  # Linux's


def multiplies_16_bits(cpuinfo: Path = CPUINFO) -> bool:
    """Tell whether the processor has units that multiply matrices of bfloat16: Intel's AMX.

    AVX-512's instructions for bfloat16 do not count: training is slower with them than in float32
    (docs/experiments.md).
    """
    try:
        with cpuinfo.open(encoding="ascii", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags.split()
