"""`nomoat simulate`: the same twice, the same when killed and resumed, and clear when refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.lora.model.adapter_folder import load_folder
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.simulations.report.results import Result
from nomoat.simulations.run import RunResources, simulate
from nomoat.simulations.run_folder import RunFolder
from nomoat.simulations.scenario import Scenario

NASTY = '</pre><script>alert(1)</script><img src=x onerror="alert(2)">&'
ROUNDS = 3
PROGRAM = [sys.executable, "-m", "nomoat", "simulate"]

pytestmark = pytest.mark.timeout(400)


class Watch:
    """A watcher that can stop the run, as a kill would, when something has happened."""

    def __init__(
        self, stop: Callable[[RoundProgress | RoundRecord], bool] = lambda _: False
    ) -> None:
        self.stop = stop

    def progress(self, progress: RoundProgress) -> None:
        if self.stop(progress):
            raise Killed

    def ended(self, record: RoundRecord) -> None:
        if self.stop(record):
            raise Killed


class Killed(BaseException):
    """No `except Exception` may catch it, as none catches a kill."""


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tiny_data: Path) -> dict[str, Any]:
    """Four volunteers, three rounds of two steps."""
    return {
        "model": str(tiny_model),
        "data": str(tiny_data),
        "by": "topic",
        "rounds": ROUNDS,
        "local_steps": 2,
        "batch_size": 4,
        "seq_len": 48,
        "rank": 4,
        "lr": 0.02,
        "dropout": 0.15,
        "seed": 5,
    }


@pytest.fixture(scope="module")
def simulated(settings: dict[str, Any]) -> Callable[..., Result]:
    """Run a scenario in this process; the workers are processes of their own."""

    def run(
        out: Path,
        workers: int = 1,
        watch: Watch | None = None,
        resume: bool = False,
        **changes: Any,
    ) -> Result:
        if resume:
            folder, scenario = RunFolder.reopen(out)
        else:
            scenario = Scenario.model_validate(settings | changes)
            folder = RunFolder.create(out, scenario, ["simulate", "--out", str(out)])
        machine = RunResources(workers, out / "cache", time.monotonic())
        return simulate(scenario, folder, machine, watch or Watch())

    return run


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, simulated: Callable[..., Result]
) -> tuple[Path, Result]:
    """One uninterrupted run with baselines, which others are compared with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, simulated(out, baselines=True)


def metrics(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timings = ("seconds", "train_seconds")
    return [{k: v for k, v in record.items() if k not in timings} for record in records]


def weights(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(
    whole: tuple[Path, Result], simulated: Callable[..., Result], tmp_path: Path
) -> None:
    out, result = whole
    again = simulated(tmp_path / "run", workers=2)
    assert weights(tmp_path / "run") == weights(out)
    assert metrics(tmp_path / "run") == metrics(out)
    assert again.adapter.digest == result.adapter.digest


def test_another_seed_gives_another_adapter(
    whole: tuple[Path, Result], simulated: Callable[..., Result], tmp_path: Path
) -> None:
    other = simulated(tmp_path / "run", seed=6, rounds=1)
    assert other.adapter.digest != whole[1].adapter.digest


def test_a_run_leaves_what_it_promises(whole: tuple[Path, Result]) -> None:
    out, result = whole
    left = {path.name for path in out.iterdir()}
    files = {"config.toml", "metrics.jsonl", "summary.json", "report.html", "curve.png", "adapter"}
    assert left == files | {"checkpoint.safetensors"}
    assert {p.name for p in (out / "adapter").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
    }
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    config = tomllib.loads((out / "config.toml").read_text())
    assert Scenario.model_validate(config["scenario"]) == result.scenario
    assert set(config["scenario"]) == {k for k, v in result.scenario if v is not None}
    assert {"nomoat", "flwr", "torch", "transformers", "peft", "python"} <= set(config["versions"])
    assert f"nomoat simulate --out {out}" in (out / "config.toml").read_text()


def test_metrics_have_one_whole_object_per_round(whole: tuple[Path, Result]) -> None:
    records = [json.loads(x) for x in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == list(range(ROUNDS + 1))
    names = {"mail", "files", "numbers", "tasks"}
    for record in records:
        assert set(record["losses"]) == names
        assert record["loss"] == pytest.approx(np.mean(list(record["losses"].values())))
        assert record["bytes_down"] > 0
        assert all(seconds >= 0 for seconds in record["seconds"].values())
    for record in records[1:]:
        assert set(record["cohort"]) == names
        left_out = set(record["dropped"]) | set(record["refused"])
        assert set(record["contributors"]) | left_out == names
        assert record["bytes_up"] > 4 * whole[1].adapter.spec.size * len(record["contributors"]) / 2
        assert set(record["seconds"]) >= {"training", "aggregating"}
    assert records[-1]["adapter"] == whole[1].adapter.digest.hex()


def test_the_summary_has_its_figures_and_they_agree_with_the_metrics(
    whole: tuple[Path, Result],
) -> None:
    out, result = whole
    summary = json.loads((out / "summary.json").read_text())
    records = metrics(out)
    assert summary["base"]["loss"] == records[0]["loss"]
    assert summary["community"]["loss"] == records[-1]["loss"]
    assert summary["volunteers"] == 4
    assert summary["rounds"] == ROUNDS
    assert summary["seconds"] > 0
    assert summary["overhead_ratio"] >= 1.0
    up = sum(record["bytes_up"] for record in records[1:])
    reports = sum(len(record["contributors"]) for record in records[1:])
    assert summary["bytes_up_per_volunteer_per_round"] == round(up / reports)
    assert set(summary["solo"]["losses"]) == {"mail", "files", "numbers", "tasks"}
    solo = summary["solo"]["losses"]
    assert summary["solo"]["loss"] == pytest.approx(np.mean(list(solo.values())))
    assert summary["pooled"]["loss"] > 0
    assert summary["community"]["loss"] < summary["base"]["loss"]
    assert result.sentence().startswith("Alone: ")


def test_dropouts_are_drawn_from_the_seed_and_named(whole: tuple[Path, Result]) -> None:
    dropped = [record["dropped"] for record in metrics(whole[0])]
    assert dropped[0] == {}
    assert any(dropped)  # with this seed; the runs compared above drop the same ones
    assert all("no answer" in why for of_round in dropped for why in of_round.values())


def test_the_adapter_loads_in_plain_peft_with_the_runs_logits_and_not_the_bases(
    whole: tuple[Path, Result], tiny_model: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nomoat.lora.model.adapter_slot import attach, swap
    from nomoat.lora.model.base_model import load

    out, result = whole
    tokens = AutoTokenizer.from_pretrained(tiny_model)("What is a letter?", return_tensors="pt")

    def logits(model: Any) -> Any:
        with torch.no_grad():
            return model(input_ids=tokens["input_ids"]).logits

    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    of_base = logits(plain)
    of_adapter = logits(PeftModel.from_pretrained(plain, out / "adapter").eval())
    ours = attach(load(str(tiny_model), "cpu"), result.adapter.spec)
    swap(ours, result.adapter)
    assert (of_adapter - logits(ours.eval())).abs().max() < 1e-5
    assert (of_adapter - of_base).abs().max() > 1e-3
    assert load_folder(out / "adapter").digest == result.adapter.digest


def test_the_report_is_one_page_without_scripts_or_anything_to_fetch(
    whole: tuple[Path, Result],
) -> None:
    page = (whole[0] / "report.html").read_text()
    assert "<script" not in page.lower()
    assert not re.search(r"(?:src|href|action|data)\s*=\s*[\"']?\s*(?:https?:)?//", page, re.I)
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|<link|<iframe|<object|<embed", page, re.I)
    assert page.count("<svg") == 2
    assert whole[1].sentence().replace("'", "&#39;") in page
    for sample in whole[1].samples:
        assert f"<th>{sample.volunteer}</th>" in page


STOPS: dict[str, Callable[[RoundProgress | RoundRecord], bool]] = {
    "after round 0 was written": lambda it: isinstance(it, RoundRecord) and it.round == 0,
    "while round 1 trains": lambda it: isinstance(it, RoundProgress) and it.round == 1,
    "while round 2 evaluates": lambda it: (
        isinstance(it, RoundProgress) and it.round == 2 and it.phase == "evaluating"
    ),
    "after the last round was written": lambda it: (
        isinstance(it, RoundRecord) and it.round == ROUNDS
    ),
}


def test_stopped_at_every_moment_and_resumed_each_time_it_ends_with_the_same_adapter(
    whole: tuple[Path, Result], simulated: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for number, stop in enumerate(STOPS.values()):
        with pytest.raises(Killed):
            simulated(out, watch=Watch(stop), resume=number > 0)
        assert not (out / "summary.json").exists()
    simulated(out, resume=True)
    assert weights(out) == weights(whole[0])
    assert metrics(out) == metrics(whole[0])


def test_killed_between_checkpoint_and_metrics_no_round_is_lost_or_written_twice(
    whole: tuple[Path, Result],
    simulated: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    real = RunFolder._write_metrics

    def killed(self: RunFolder, records: list[dict[str, Any]]) -> None:
        if records[-1]["round"] == 2:
            raise Killed
        real(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_write_metrics", killed)
        with pytest.raises(Killed):
            simulated(out)
    assert len(metrics(out)) == 2
    simulated(out, resume=True)
    assert weights(out) == weights(whole[0])
    assert metrics(out) == metrics(whole[0])


def test_after_a_real_kill_the_command_line_resumes_to_the_same_bytes_and_prints_one_object(
    whole: tuple[Path, Result],
    settings: dict[str, Any],
    typed: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    with started(command(settings, out)) as process:
        until((out / "checkpoint.safetensors").exists, process)
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(200)
        until(lambda: not any(alive(pid) for pid in children), None)
    assert not (out / "summary.json").exists()
    again = ("simulate", "--resume", "--out", str(out), "--workers", "1", "--json")
    code, shown, said = typed(*again)
    assert code == 0, said
    assert json.loads(shown) == json.loads((out / "summary.json").read_text())
    assert shown.count("\n") == 1  # nothing else on stdout
    assert "Traceback" not in said
    assert said.startswith(f"run      {out}\n")
    assert f"round {ROUNDS}" in said
    assert weights(out) == weights(whole[0])
    assert metrics(out) == metrics(whole[0])


def test_ctrl_c_ends_in_one_line_with_130_and_leaves_no_process(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with started(command(settings | {"rounds": 500}, out)) as process:
        until((out / "checkpoint.safetensors").exists, process)
        children = descendants(process.pid)
        assert children
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everyone
        _, said = process.communicate(timeout=120)
        until(lambda: not any(alive(pid) for pid in children), None)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "nomoat: interrupted; what was finished is kept"
    assert (out / "checkpoint.safetensors").exists()


def test_rows_that_attack_the_page_or_the_plot_arrive_as_text(
    simulated: Callable[..., Result], tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"{NASTY} {i}", "completion": f"{NASTY} $\\frac{i}", "who": who}
        for who in ("$x^{$", f"{NASTY}", "名前" * 40, "1")
        for i in range(6)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    simulated(tmp_path / "run", data=str(data), by="who", rounds=1, dropout=0.0)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_rolora_sends_about_half_the_bytes(
    simulated: Callable[..., Result], tmp_path: Path
) -> None:
    both = simulated(tmp_path / "both", rounds=2, dropout=0.0, secure=False)
    half = simulated(tmp_path / "half", rounds=2, dropout=0.0, secure=False, method="rolora")
    key = "bytes_up_per_volunteer_per_round"
    assert half.summary()[key] / both.summary()[key] == pytest.approx(0.5, abs=0.03)


def test_only_a_fraction_takes_part_in_each_round(
    simulated: Callable[..., Result], tmp_path: Path
) -> None:
    result = simulated(tmp_path / "run", rounds=2, fraction=0.5, dropout=0.0)
    assert [len(record["cohort"]) for record in result.records[1:]] == [2, 2]
    assert all(len(record["losses"]) == 4 for record in result.records)


def test_a_full_disk_is_one_clear_error_and_the_run_can_go_on(
    whole: tuple[Path, Result],
    simulated: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nomoat.aggregation.errors import NomoatError

    real = RunFolder.write

    def full(self: RunFolder, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        if record.round == 2:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", _no_space)
                return real(self, record, checkpoint)
        return real(self, record, checkpoint)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", full)
        with pytest.raises(NomoatError, match=r"checkpoint\.safetensors: No space left on device"):
            simulated(out)
    assert [p.name for p in out.glob(".*")] == []  # nothing half-written
    simulated(out, resume=True)
    assert weights(out) == weights(whole[0])


def _no_space(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_resumed_run_refuses_other_data_and_a_damaged_folder(
    simulated: Callable[..., Result], tiny_data: Path, tmp_path: Path
) -> None:
    from nomoat.aggregation.errors import UsageError

    data = tmp_path / "rows.jsonl"
    shutil.copy(tiny_data, data)
    out = tmp_path / "run"
    with pytest.raises(Killed):
        simulated(out, data=str(data), watch=Watch(STOPS["while round 1 trains"]))
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(UsageError, match="have changed since this run started"):
        simulated(out, resume=True)
    assert (out / "config.toml").exists()
    shutil.copy(tiny_data, data)
    (out / "checkpoint.safetensors").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UsageError, match="damaged"):
        simulated(out, resume=True)


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from nomoat.__main__ import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["nomoat", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        code = end.value.code or 0
        assert isinstance(code, int)
        return code, said.out, said.err

    return run


@pytest.fixture
def cli(typed: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """Run a command line that is refused, in this process: (exit code, stderr)."""

    def run(*arguments: str) -> tuple[int, str]:
        code, shown, said = typed(*arguments)
        assert shown == ""
        return code, said

    return run


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "a missing model": (["--model", "./no-such-folder"], 8, "no-such-folder"),
    "a file as model": (["--model", "DATA"], 8, "is a file"),
    "missing data": (["--model", "MODEL", "--data", "absent.jsonl"], 8, "absent.jsonl"),
    "empty data": (["--model", "MODEL", "--data", "empty.jsonl"], 8, "empty.jsonl"),
    "a malformed line": (["--model", "MODEL", "--data", "broken.jsonl"], 8, "broken.jsonl:2"),
    "an unknown field": (["--model", "MODEL", "--data", "DATA", "--by", "speaker"], 8, "topic"),
    "an unknown label": (
        ["--model", "MODEL", "--data", "DATA", "--partition", "dirichlet:1", "--label", "no"],
        8,
        "'no'",
    ),
    "too few rows": (["--model", "MODEL", "--data", "short.jsonl"], 2, "rows"),
    "a bad partition": (["--partition", "zipf"], 2, "dirichlet"),
    "a negative alpha": (["--partition", "dirichlet:-1"], 2, "dirichlet"),
    "a module the model lacks": (
        ["--model", "MODEL", "--data", "DATA", "--by", "topic", "--target-modules", "c_attn"],
        2,
        "c_attn",
    ),
    "a method that does not exist": (["--method", "magic"], 2, "fedavg"),
    "a method that cannot be summed": (["--method", "flora"], 2, "flora"),
    "more reports than volunteers": (
        ["--model", "MODEL", "--data", "DATA", "--by", "topic", "--min-reports", "9"],
        2,
        "9",
    ),
    "a sum of one": (["--min-reports", "1"], 2, "--no-secure"),
    "one volunteer": (["--volunteers", "1"], 2, "volunteers"),
    "no rounds": (["--rounds", "0"], 2, "rounds"),
    "resume without a folder": (["--resume"], 2, "--out"),
    "resume in an empty folder": (["--resume", "--out", "hollow"], 2, "hollow"),
    "resume with other settings": (["--resume", "--out", "hollow", "--seed", "1"], 2, "--out"),
    "resume of a mangled config": (["--resume", "--out", "mangled"], 2, "config.toml"),
    "a folder that holds a run": (["--out", "taken"], 2, "--resume"),
    "a folder with something in the way": (["--out", "other"], 2, "adapter"),
    "a file where the folder should be": (["--out", "short.jsonl"], 1, "short.jsonl"),
    "a folder below a file": (["--out", "short.jsonl/run"], 1, "short.jsonl"),
    "a scenario that is not there": (["absent.toml"], 2, "absent.toml"),
    "a scenario with an unknown setting": (["odd.toml"], 2, "odd.toml"),
    "a scenario that is no TOML": (["short.jsonl"], 2, "short.jsonl"),
    "an unknown option": (["--no-such-option"], 2, "no-such-option"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_one_line_with_its_exit_code_and_leaves_nothing(
    cli: Callable[..., tuple[int, str]],
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
    what: str,
) -> None:
    arguments, code, hint = REFUSED[what]
    (tmp_path / "empty.jsonl").write_text("")
    good = '{"prompt": "a", "completion": "b"}\n'
    (tmp_path / "broken.jsonl").write_text(good + '{"prompt": \n' + good)
    (tmp_path / "short.jsonl").write_text(good * 3)
    (tmp_path / "odd.toml").write_text("[scenario]\nrouns = 3\n")
    for name, file in (("hollow", "note"), ("taken", "config.toml"), ("mangled", "config.toml")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("rounds = = 3")
    (tmp_path / "other" / "adapter").mkdir(parents=True)
    before = sorted(p for p in tmp_path.rglob("*"))
    places = {"MODEL": str(tiny_model), "DATA": str(tiny_data)}
    arguments = [places.get(argument, argument) for argument in arguments]
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "new"] if what != "resume without a folder" else arguments
    got, said = cli("simulate", *arguments)
    assert got == code, said
    assert hint in said
    assert "Traceback" not in said
    if what != "an unknown option":  # typer frames its own
        assert said.startswith("nomoat: ")
        assert said.count("\n") == 1
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_help_imports_neither_torch_nor_flower_nor_transformers() -> None:
    probe = (
        "import sys\n"
        "from nomoat.__main__ import main\n"
        "sys.argv = ['nomoat', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'flwr', 'transformers', 'peft', 'matplotlib'}\n"
        "if 'simulate' not in sys.argv:  # its options are made of the settings, which know numpy\n"
        "    heavy |= {'numpy', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    for arguments in (["--help"], ["simulate", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def command(settings: dict[str, Any], out: Path) -> list[str]:
    options = [
        part
        for name, value in settings.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    return [*PROGRAM, *options, "--workers", "1", "--out", str(out)]


class started:
    """A process in a group of its own, ended with everything in it."""

    def __init__(self, arguments: list[str]) -> None:
        # What is started in a shell's background ignores Ctrl-C, and so does what it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._process = subprocess.Popen(
                arguments,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        self._process.wait(200)


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    """Wait for something another process does; fail if that process ends, or after 200 s."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
