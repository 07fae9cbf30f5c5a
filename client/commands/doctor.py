"""`nomoat doctor`: collects symptoms from this machine and prints what the checks say."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nomoat.client.doctor import Finding, Symptoms, Verdict, worst
from nomoat.client.probes import attempt

MARKS = {Verdict.GOOD: "ok", Verdict.WARN: "!", Verdict.BAD: "✗", Verdict.UNKNOWN: "?"}


def render_doctor(findings: Sequence[Finding]) -> str:
    """One line a check, the mending command below it; the summary last."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.verdict]:>2}  {finding.check:<{width}}  {finding.text}")
        if finding.mend:
            lines.append(f"    {'':<{width}}  → {finding.mend}")
    return "\n".join([*lines, _summary(findings)])


def _summary(findings: Sequence[Finding]) -> str:
    bad = sum(finding.verdict is Verdict.BAD for finding in findings)
    if bad:
        return f"{bad} problem{'s' if bad > 1 else ''} to mend"
    if worst(tuple(findings)) is Verdict.GOOD:
        return "all is well"
    return "nothing is broken; look at the lines marked ! and ?"


def doctor_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {"check": f.check, "verdict": f.verdict.value, "text": f.text, "mend": f.mend}
        for f in findings
    ]


def local_symptoms(version: str, folder: Path, key_path: Path) -> Symptoms:
    """What can be found without the network; the caller adds community, data and log."""
    found = Symptoms(
        platform=sys.platform,
        python=sys.version_info[:2],
        version=version,
        folder=str(folder),
        torch_installed=importlib.util.find_spec("torch") is not None,
        gpu_present=attempt("gpu", _gpu_present),
        driver=attempt("driver", _driver),
        free_disk_bytes=attempt("disk", lambda: shutil.disk_usage(folder).free),
        free_memory_bytes=attempt("memory", _free_memory),
        key_path=str(key_path),
        key_mode=attempt("key", lambda: key_path.stat().st_mode),
    )
    if found.torch_installed:  # loads torch: seconds, but only `doctor` pays them
        return replace(found, torch_cuda=attempt("cuda", _torch_cuda))
    return found


def _gpu_present() -> bool | None:
    """NVIDIA display controllers on the PCI bus (Linux); elsewhere unknown."""
    devices = Path("/sys/bus/pci/devices")
    if not devices.is_dir():
        return True if _driver() else None
    for device in devices.iterdir():
        vendor = (device / "vendor").read_text().strip()
        if vendor == "0x10de" and (device / "class").read_text().startswith("0x03"):
            return True
    return False


def _driver() -> str:
    import pynvml

    pynvml.nvmlInit()
    return str(pynvml.nvmlSystemGetDriverVersion())


def _torch_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if something is broken, else 0."""
    return int(any(finding.verdict is Verdict.BAD for finding in findings))
