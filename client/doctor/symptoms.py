"""Symptoms collected from this machine and its coordinator, for the checks to judge."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import ssl
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat.client.doctor.checks import Symptoms
from nomoat.client.doctor.kept_files import damage
from nomoat.client.machine.attempt import attempt
from nomoat.lora.device.present import gpus_of, torch_has_cuda

if TYPE_CHECKING:
    from nomoat.client.connection.https import Endpoint
    from nomoat.client.home import CommunityFolder, Home
    from nomoat.client.settings import VolunteerSettings

TIMEOUT_S = 10.0


def symptoms(home: Home, folder: CommunityFolder | None) -> Symptoms:
    """Everything that can be found out here and from the coordinator."""
    from nomoat import __version__

    root = home.root if home.root.is_dir() else Path.home()
    found = local_symptoms(__version__, root, home.identity)
    if folder is None:
        return found
    settings = folder.load()
    found = replace(
        found,
        data=str(settings.data),
        least_free_disk_bytes=settings.machine.min_free_disk_mb << 20,
        **_data(settings),
        bits_error=_bits_error(settings),
        **(attempt("fit", lambda: _fit(folder, settings)) or {}),
        sent_log_error=_sent_log_error(folder),
        damage=attempt("files", lambda: damage(folder)),
        service_active=attempt("service", lambda: _service_active(home, folder)),
    )
    return replace(found, address=settings.address, **line(folder, settings.address))


def line(folder: CommunityFolder, address: str) -> dict[str, Any]:
    """Look at the coordinator's port: reachable, certificate, key, clock and protocols."""
    import time

    from nomoat.aggregation.errors import NomoatError, Unreachable
    from nomoat.aggregation.protocol import wire
    from nomoat.aggregation.protocol.enrolment import CommunityInfo, check_info
    from nomoat.client.connection.https import Endpoint, call
    from nomoat.client.connection.succession.followed_keys import asked

    info = folder.info()
    endpoint = Endpoint.at(address, ca=info.ca)
    found: dict[str, Any] = {"pinned_fingerprint": folder.keys().current.hex()}
    try:
        with socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_S):
            found["reachable"] = True
    except OSError:
        return {**found, "reachable": False}
    try:
        found["certificate_days"] = _certificate_days(endpoint)
        answer = wire.Packet(call(endpoint, "GET", "/community"))
        said = wire.decode(answer, CommunityInfo, "coordinator")
        found["fingerprint"] = said.public.hex()
        check_info(said, said.public)
        if (told := asked(endpoint)) is not None:
            now = folder.keys().extended(told, "coordinator").current
            found["pinned_fingerprint"] = now.hex()
    except ssl.SSLError as problem:
        return {**found, "tls_error": getattr(problem, "verify_message", "") or problem.reason}
    except Unreachable as problem:
        return {**found, "tls_error": str(problem)}
    except (NomoatError, OSError) as problem:
        return {**found, "tls_error": f"{address} is no coordinator of nomoat ({problem})"}
    skew, spoken = time.time() - said.now, (said.protocol_low, said.protocol_high)
    return {**found, "clock_skew_s": skew, "protocols": spoken}


def _certificate_days(endpoint: Endpoint) -> float:
    import datetime

    from cryptography import x509

    from nomoat.client.connection.https import tls_context

    with (
        socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_S) as plain,
        tls_context(endpoint).wrap_socket(plain, server_hostname=endpoint.host) as tls,
    ):
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left.total_seconds() / 86400


def _data(settings: VolunteerSettings) -> dict[str, Any]:
    from nomoat.aggregation.errors import NomoatError
    from nomoat.lora.data.reading import read

    try:
        return {"data_rows": len(read(settings.data).conversations)}
    except NomoatError as problem:
        return {"data_error": str(problem)}


def _fit(folder: CommunityFolder, settings: VolunteerSettings) -> dict[str, Any] | None:
    """Predict what training takes, once there is an adapter that says how large it is."""
    from nomoat.aggregation.errors import DoesNotFit
    from nomoat.aggregation.protocol import lineage
    from nomoat.client.machine.free_memory import free_memory
    from nomoat.client.training.community_fit import rank_of
    from nomoat.client.training.memory_fit import Workload, planned_or_cut
    from nomoat.lora.model.files import resolve

    record, info = folder.version(), folder.info()
    if record is None or not folder.adapter(record).exists():
        return None
    data = folder.adapter(record).read_bytes()
    spec = lineage.from_file(data, record.version.adapter, "doctor").spec
    machine, targets = settings.machine, tuple(spec.target_modules)
    share, ours = machine.max_vram_share or 1.0, _workers(folder)
    here = free_memory(settings.device, share, ours, machine.layout)
    try:
        rank = min(spec.rank, rank_of(settings, info))
        frozen = spec.rank - rank
        workload = Workload(info.batch_size, info.seq_len, rank, targets, machine.adam_8bit, frozen)
        found = planned_or_cut(workload, resolve(settings.base), here, machine.base_bits)
    except DoesNotFit as problem:
        return {"memory_error": str(problem)}
    return {
        "needed_memory_bytes": found.predicted.total,
        "free_memory_bytes": here.free_bytes,
    }


def _bits_error(settings: VolunteerSettings) -> str | None:
    from nomoat.aggregation.errors import UsageError
    from nomoat.client.training.memory_fit import check_held

    try:
        check_held(settings.machine, settings.device)
    except UsageError as problem:
        return str(problem).partition(":")[0]
    return None


def _workers(folder: CommunityFolder) -> frozenset[int]:
    """The processes of the volunteer that runs here: they hold what training needs already."""
    import psutil

    from nomoat.client.volunteer.status import read_status, running

    state = read_status(folder) if running(folder) else None
    if state is None:
        return frozenset()
    children = attempt("workers", lambda: psutil.Process(state.pid).children())
    return frozenset(child.pid for child in children or ())


def _sent_log_error(folder: CommunityFolder) -> str | None:
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.sent.log_file import SentLog

    try:
        SentLog(folder.root).check()
    except NomoatError as problem:
        return str(problem)
    return None


def _service_active(home: Home, folder: CommunityFolder) -> bool:
    """Return True if a service's file is there, for one or all; raises without a manager."""
    from nomoat.client.service.install import wanted

    return any(Path(wanted(home, one, {}).path).exists() for one in (None, folder))


def local_symptoms(version: str, folder: Path, key_path: Path) -> Symptoms:
    """Collect what needs no network; the caller adds community, data and log."""
    found = Symptoms(
        platform=sys.platform,
        python=sys.version_info[:2],
        version=version,
        folder=str(folder),
        torch_installed=importlib.util.find_spec("torch") is not None,
        gpu_present=attempt("gpu", _gpu_present),
        driver=attempt("driver", _driver),
        gpus=attempt("gpus", _gpu_names) or (),
        free_disk_bytes=attempt("disk", lambda: shutil.disk_usage(folder).free),
        free_memory_bytes=attempt("memory", _free_memory),
        key_path=str(key_path),
        key_mode=attempt("key", lambda: key_path.stat().st_mode),
    )
    if found.torch_installed:  # loads torch: seconds, but only `doctor` pays them
        return replace(
            found,
            torch_cuda=attempt("cuda", _torch_cuda),
            torch_mps=attempt("mps", _torch_mps),
            torch_built_for_cuda=attempt("torch", torch_has_cuda) or False,
        )
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


def _gpu_names() -> tuple[str, ...]:
    """Names of the devices that CUDA counts here; in NVML's order, as `nomoat run` has it."""
    import pynvml

    from nomoat.client.machine.gpu import names_of

    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
    counted = ",".join(f"cuda:{place}" for place in range(count)) or "cpu"
    return tuple(names_of(gpus_of(counted)))


def _torch_mps() -> bool:
    import torch

    return bool(torch.backends.mps.is_available())


def _torch_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
