"""A processor's units for 16-bit products are found from Linux's own list, or taken for absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.lora.device.processor import multiplies_16_bits


@pytest.mark.parametrize(
    ("flags", "there"),
    [("fpu avx512_bf16 amx_bf16 amx_tile", True), ("fpu avx512_bf16 amx_int8", False), ("", False)],
)
def test_only_matrix_units_for_bfloat16_count(tmp_path: Path, flags: str, there: bool) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text(f"processor\t: 0\nmodel name\t: amx_bf16\nflags\t\t: {flags}\n")
    assert multiplies_16_bits(listed) is there
    assert not multiplies_16_bits(tmp_path / "none")
