from __future__ import annotations

import json
import os
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.client.cli.doctor import doctor_json, exit_code, render_doctor
from nomoat.client.doctor import symptoms as shell
from nomoat.client.doctor.checks import CheckResult, CheckStatus, Symptoms, examine, worst
from nomoat.client.doctor.symptoms import local_symptoms

HEALTHY = Symptoms(
    platform="linux",
    python=(3, 12),
    version="0.2.0",
    protocol=2,
    protocols=(1, 2),
    gpu_present=True,
    driver="550.54",
    torch_cuda=True,
    free_memory_bytes=8 << 30,
    needed_memory_bytes=5 << 30,
    clock_skew_s=1.0,
    address="https://example.org:9092",
    reachable=True,
    certificate_days=300.0,
    fingerprint="ab" * 32,
    pinned_fingerprint="ab" * 32,
    data="rows.jsonl",
    data_rows=10,
    free_disk_bytes=100 << 30,
    key_path="/home/me/identity",
    key_mode=0o100600,
    service_active=True,
)

ILLS: dict[str, tuple[dict[str, Any], str, str]] = {
    "python": ({"python": (3, 10)}, "3.11 is needed", "uv python"),
    "version": ({"protocols": (3, 4)}, "speaks 3 to 4", "git pull && make install"),
    "gpu": ({"torch_cuda": False}, "built without CUDA", "pip install"),
    "driver": ({"torch_cuda": False, "driver": None}, "without a working driver", "driver"),
    "torch": ({"torch_installed": False}, "PyTorch is missing", "pip install torch"),
    "memory": ({"free_memory_bytes": 1 << 30}, "5.0 GiB needed, 1.0 GiB free", "ps aux"),
    "clock": ({"clock_skew_s": -300.0}, "-300 s", "timedatectl"),
    "reach": ({"reachable": False}, "does not answer", "https://example.org:9092/"),
    "tls": ({"tls_error": "expired"}, "TLS fails: expired", "openssl s_client"),
    "fingerprint": ({"fingerprint": "cd" * 32}, "in between", "nomoat join"),
    "data": ({"data_error": "rows.jsonl:3: not JSON"}, "rows.jsonl:3", "preview rows.jsonl"),
    "rows": ({"data_rows": 0}, "no row", "preview"),
    "disk": ({"free_disk_bytes": 1 << 30}, "1.0 GiB free", "hf cache"),
    "key": ({"key_mode": 0o100644}, "readable by others", "chmod 600 /home/me/identity"),
    "no key": ({"key_mode": None}, "missing", "identity import"),
    "sent log": ({"sent_log_error": "sent log, line 3"}, "line 3", "--start-over"),
}


def test_every_card_is_named_as_settings_name_it() -> None:
    results = {f.check: f.text for f in examine(replace(HEALTHY, gpus=("RTX 4090", "RTX 3060")))}
    assert results["gpu"] == "CUDA works (driver 550.54): cuda:0 RTX 4090, cuda:1 RTX 3060"


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    results = examine(HEALTHY)
    assert {result.status for result in results} == {CheckStatus.GOOD}
    assert worst(results) is CheckStatus.GOOD
    assert render_doctor(results).endswith("all is well")
    assert exit_code(results) == 0


@pytest.mark.parametrize("ill", ILLS)
def test_each_ill_is_named_with_one_command(ill: str) -> None:
    change, words, command = ILLS[ill]
    results = examine(replace(HEALTHY, **change))
    (bad,) = [result for result in results if result.status is CheckStatus.BAD]
    assert words in bad.text
    assert bad.mend is not None
    assert command in bad.mend
    assert "\n" not in bad.mend
    assert exit_code(results) == 1
    assert f"→ {bad.mend}" in render_doctor(results)


def test_a_machine_that_joined_nothing_has_nothing_to_mend_but_is_told_how_to() -> None:
    results = examine(replace(HEALTHY, address=None, key_mode=None))
    unknown = {each.check: each for each in results if each.status is CheckStatus.UNKNOWN}
    assert exit_code(results) == 0
    assert unknown["coordinator"].mend == "nomoat join LINK --data FILE"
    assert unknown["identity"].mend is None


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("clock_skew_s", "clock"),
        ("free_disk_bytes", "disk"),
        ("reachable", "coordinator"),
        ("protocols", "version"),
        ("free_memory_bytes", "memory"),
        ("data_rows", "data"),
        ("certificate_days", "tls"),
    ],
)
def test_what_could_not_be_found_out_does_not_pass(name: str, check: str) -> None:
    results = {f.check: f for f in examine(replace(HEALTHY, **{name: None}))}
    assert results[check].status is CheckStatus.UNKNOWN


def test_a_clock_that_is_no_number_does_not_pass() -> None:
    results = {f.check: f for f in examine(replace(HEALTHY, clock_skew_s=float("nan")))}
    assert results["clock"].status is CheckStatus.UNKNOWN


def test_a_certificate_near_its_end_is_a_warning() -> None:
    results = examine(replace(HEALTHY, certificate_days=3.0))
    assert worst(results) is CheckStatus.WARN
    assert exit_code(results) == 0


def test_whoever_speaks_the_older_protocol_is_the_one_to_upgrade() -> None:
    (ours,) = [f for f in examine(replace(HEALTHY, protocols=(3, 9))) if f.check == "version"]
    (theirs,) = [f for f in examine(replace(HEALTHY, protocols=(1, 1))) if f.check == "version"]
    assert (ours.status, theirs.status) == (CheckStatus.BAD, CheckStatus.BAD)
    assert ours.mend == "git pull && make install"
    assert "coordinator must upgrade" in theirs.text


def test_every_nomoat_command_it_names_exists() -> None:
    from click.testing import CliRunner
    from typer.main import get_command

    from nomoat.cli import app

    root = get_command(app)
    named = {
        result.mend
        for changes, _, _ in ILLS.values()
        for result in examine(replace(HEALTHY, service_active=False, **changes))
        if result.mend is not None and result.mend.startswith("nomoat ")
    }
    assert len(named) >= 5
    for mend in named:
        words = [word for word in shlex.split(mend)[1:] if word.islower() or word.startswith("-")]
        words = [word for word in words if "." not in word and "/" not in word]
        shown = CliRunner().invoke(root, [*(w for w in words if not w.startswith("-")), "--help"])
        assert shown.exit_code == 0, (mend, shown.output)
        assert all(option in shown.output for option in words if option.startswith("--")), mend


def test_a_name_with_spaces_cannot_become_another_command() -> None:
    results = examine(replace(HEALTHY, data="a; rm -rf ~", data_rows=0))
    (bad,) = [result for result in results if result.status is CheckStatus.BAD]
    assert bad.mend == "nomoat data preview 'a; rm -rf ~'"


def test_without_a_gpu_the_processor_is_good_enough() -> None:
    results = examine(replace(HEALTHY, gpu_present=False, driver=None, torch_cuda=False))
    assert worst(results) is CheckStatus.GOOD


nothing = st.none()
anything: dict[str, st.SearchStrategy[Any]] = {
    "int | None": nothing | st.integers(-(2**60), 2**60),
    "float | None": nothing | st.floats(),
    "bool | None": nothing | st.booleans(),
    "str | None": nothing | st.text(max_size=20),
}
symptoms = st.builds(
    Symptoms,
    platform=st.sampled_from(["linux", "darwin", "win32"]),
    python=st.tuples(st.integers(2, 4), st.integers(0, 20)),
    version=st.text(max_size=10),
    **{f.name: anything[str(f.type)] for f in fields(Symptoms) if str(f.type) in anything},
)


@settings(max_examples=200, deadline=None)
@given(symptoms)
def test_whatever_was_found_the_doctor_answers(found: Symptoms) -> None:
    results = examine(found)
    assert render_doctor(results)
    json.dumps(doctor_json(results), allow_nan=False)


def test_this_machine_can_be_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_torch_cuda", lambda: False)  # importing torch takes seconds
    key = tmp_path / "identity"
    key.write_text("x")
    os.chmod(key, 0o644)
    found = local_symptoms("0.1.0", tmp_path, key)
    assert found.free_disk_bytes
    assert found.free_memory_bytes
    verdicts = {f.check: f.status for f in examine(found)}
    assert verdicts["python"] is CheckStatus.GOOD
    if os.name == "posix":
        assert verdicts["identity"] is CheckStatus.BAD


def test_the_summary_counts_problems() -> None:
    bad = CheckResult("x", CheckStatus.BAD, "broken")
    assert render_doctor([bad]).endswith("1 problem to mend")
    assert render_doctor([bad, bad]).endswith("2 problems to mend")
    assert "marked" in render_doctor([CheckResult("x", CheckStatus.UNKNOWN, "?")])
