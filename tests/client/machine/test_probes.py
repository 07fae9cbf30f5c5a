from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nomoat.client.machine import probes
from nomoat.client.machine.attempt import attempt
from nomoat.client.machine.policy import Action, decide
from nomoat.client.machine.probes import Probes
from nomoat.client.machine.readings import GpuProgram, MachineLimits, Orders

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OURS = 4242


def process(pid: int, memory: int | None) -> Any:
    return types.SimpleNamespace(pid=pid, usedGpuMemory=memory)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver with one device: ours computes, another program draws."""
    fake = types.ModuleType("pynvml")
    values: dict[str, Any] = {
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
        "nvmlDeviceGetPowerUsage": lambda _: 123_456,
        "nvmlDeviceGetTemperature": lambda *_: 71,
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(total=1000, free=600),
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [process(OURS, 400)],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda _: [process(os.getpid(), None)],
        "nvmlDeviceGetProcessUtilization": lambda *_: [
            types.SimpleNamespace(pid=os.getpid(), smUtil=37, timeStamp=5)
        ],
    }
    for name, value in values.items():
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def look(folder: Path) -> Any:
    return Probes(folder, lambda: frozenset({OURS})).readings(NOW)


def test_a_gpu_is_read_and_our_own_processes_are_not_others(nvml: Any, tmp_path: Path) -> None:
    readings = look(tmp_path)
    assert readings.temperature_c == 71
    assert readings.power_w == pytest.approx(123.456)
    assert readings.vram_share == pytest.approx(0.4)
    (program,) = readings.gpu_programs
    assert program == GpuProgram(program.name, False, None, 0.37)
    assert program.name


def test_what_draws_is_judged_by_its_time_even_where_it_is_listed_as_computing(
    nvml: Any, tmp_path: Path
) -> None:
    """Windows lists browsers and overlays among both kinds."""
    browser = process(os.getpid(), None)
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda _: [process(OURS, 400), browser]
    (program,) = look(tmp_path).gpu_programs
    assert not program.compute
    nvml.nvmlDeviceGetProcessUtilization = lambda *_: [
        types.SimpleNamespace(pid=OURS, smUtil=90, timeStamp=5)
    ]
    (program,) = look(tmp_path).gpu_programs
    assert program.busy_share == 0.0  # others have samples, it has none: it does nothing
    nvml.nvmlDeviceGetGraphicsRunningProcesses = lambda _: []
    (program,) = look(tmp_path).gpu_programs
    assert program.compute


def test_a_device_that_is_not_used_is_not_looked_at(nvml: Any, tmp_path: Path) -> None:
    readings = Probes(tmp_path, lambda: frozenset({OURS}), ()).readings(NOW)
    assert (readings.gpu_programs, readings.power_w, readings.vram_share) == (None, None, None)
    assert readings.temperature_c != 71


def test_strangers_on_either_of_two_devices_are_seen(nvml: Any, tmp_path: Path) -> None:
    drawing = {"gpu0": [], "gpu1": [process(os.getpid(), None)]}
    nvml.nvmlDeviceGetGraphicsRunningProcesses = drawing.__getitem__
    nvml.nvmlDeviceGetTemperature = lambda device, _: {"gpu0": 40, "gpu1": 80}[device]
    readings = Probes(tmp_path, lambda: frozenset({OURS}), (0, 1)).readings(NOW)
    assert len(readings.gpu_programs or ()) == 1
    assert (readings.temperature_c, readings.power_w) == (80, pytest.approx(2 * 123.456))


@pytest.mark.parametrize("gpu", [0, "MIG-5a/7/0"])
def test_of_a_card_in_slices_the_one_that_computes_is_looked_at(
    nvml: Any, tmp_path: Path, gpu: int | str
) -> None:
    """Its memory and programs are the slice's, power and temperature the board's."""

    def of(device: str, name: str) -> str:
        assert device == name
        return device

    nvml.nvmlDeviceGetMigMode = lambda device: (int(device == "gpu0"), 0)
    nvml.nvmlDeviceGetMigDeviceHandleByIndex = lambda device, index: f"slice{index} of {device}"
    nvml.nvmlDeviceGetHandleByUUID = {"MIG-5a/7/0": "slice0 of gpu0"}.__getitem__
    nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = lambda device: device.split(" of ")[1]
    nvml.nvmlDeviceGetPowerUsage = lambda device: 1000 * len(of(device, "gpu0"))
    nvml.nvmlDeviceGetMemoryInfo = lambda device: types.SimpleNamespace(
        total=len(of(device, "slice0 of gpu0")), free=1
    )
    readings = Probes(tmp_path, lambda: frozenset({OURS}), (gpu,)).readings(NOW)
    assert (readings.power_w, readings.vram_share) == (4, pytest.approx(400 / 14))


def test_a_driver_without_process_times_still_names_programs(nvml: Any, tmp_path: Path) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("Not Supported")

    nvml.nvmlDeviceGetProcessUtilization = refused
    assert look(tmp_path).gpu_programs[0].busy_share is None


NVML_CALLS = [
    "nvmlInit",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
]


@pytest.mark.parametrize("broken", NVML_CALLS)
def test_any_failing_call_is_an_unknown_fact_and_the_rest_stays_known(
    broken: str, nvml: Any, tmp_path: Path
) -> None:
    def crash(*_: Any) -> None:
        raise OSError("driver crashed")

    setattr(nvml, broken, crash)
    readings = look(tmp_path)
    assert readings.free_disk_bytes is not None
    gpu = [readings.temperature_c, readings.power_w, readings.vram_share, readings.gpu_programs]
    assert None in gpu
    if broken.startswith("nvmlDeviceGetP"):
        assert readings.temperature_c == 71


def test_without_any_library_every_fact_is_unknown_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("pynvml", "psutil", "jeepney", "jeepney.io.blocking"):
        monkeypatch.setitem(sys.modules, name, None)  # import fails
    readings = look(tmp_path)
    assert readings.on_battery is None
    assert readings.other_cpu_share is None
    assert readings.metered is None
    assert decide(readings, MachineLimits(), Orders(), in_round=True).action is Action.TRAIN


def test_a_probe_may_raise_anything_but_an_exit() -> None:
    class Odd(Exception):
        pass

    def odd() -> int:
        raise Odd

    assert attempt("odd", odd) is None
    with pytest.raises(KeyboardInterrupt):
        attempt("stop", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))


def test_another_programs_load_is_told_from_ours() -> None:
    me, nobody = probes.Processor(), probes.Processor()
    assert me.other_share(frozenset({os.getpid()})) is None
    assert nobody.other_share(frozenset()) is None
    began, spent = time.monotonic(), time.process_time()
    while time.process_time() < spent + 0.4:
        pass
    others, everyone = me.other_share(frozenset({os.getpid()})), nobody.other_share(frozenset())
    cores_s = (time.monotonic() - began) * (os.cpu_count() or 1)
    assert others is not None
    assert everyone is not None
    assert everyone - others == pytest.approx(0.4 / cores_s, rel=0.5)


@pytest.mark.parametrize(
    ("battery", "expected"),
    [(None, False), (True, False), (False, True), ("silent", None)],
)
def test_battery(battery: Any, expected: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    plugged = None if battery == "silent" else battery
    found = None if battery is None else types.SimpleNamespace(power_plugged=plugged)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    assert probes.on_battery() is expected


@pytest.fixture
def dbus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A real message bus of our own, as session and as system bus."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    config = tmp_path / "bus.conf"
    config.write_text(
        "<busconfig><type>session</type>"
        f"<listen>unix:path={tmp_path}/bus</listen>"
        '<policy context="default"><allow send_destination="*" eavesdrop="true"/>'
        '<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>'
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    address = daemon.stdout.readline().strip()
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    yield address
    daemon.terminate()
    daemon.wait(60)
    daemon.stdout.close()


def serve(name: str, signature: str, body: tuple[Any, ...]) -> threading.Thread:
    """Answer one method call on the bus as `name`."""
    from jeepney import MessageType, new_method_return
    from jeepney.bus_messages import message_bus
    from jeepney.io.blocking import open_dbus_connection

    connection = open_dbus_connection("SESSION")
    connection.send_and_get_reply(message_bus.RequestName(name), timeout=60)

    def answer() -> None:
        while True:
            message = connection.receive(timeout=60)
            if message.header.message_type is MessageType.method_call:
                connection.send(new_method_return(message, signature, body))
                connection.close()
                return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("code", "expected"), [(1, True), (3, True), (2, False), (0, None)])
def test_network_manager_says_whether_the_network_is_metered(
    code: int, expected: bool | None, dbus: str
) -> None:
    thread = serve("org.freedesktop.NetworkManager", "v", (("u", code),))
    assert probes.metered() is expected
    thread.join(60)


def test_idle_time_comes_from_the_screen_saver_where_gnome_is_not(dbus: str) -> None:
    thread = serve("org.freedesktop.ScreenSaver", "u", (90_000,))
    assert probes.idle_s() == 90.0
    thread.join(60)


def test_a_bus_without_these_services_leaves_them_unknown(dbus: str) -> None:
    assert attempt("metered", probes.metered) is None
    assert probes.idle_s() is None


def test_local_time_has_a_zone() -> None:
    assert probes.local_now(0.0).utcoffset() is not None
    assert probes.local_now(1e9).timestamp() == 1e9
