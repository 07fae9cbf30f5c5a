"""Commands of the guides are typed as they are written, on a community that has run a round.

What trains, waits, or changes the machine it is typed on is only parsed (test_guides.py).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.cli import app
from nomoat.client.home import Home
from nomoat.client.training.private_adapter import PrivateAdapter, PrivateAdapterFile
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.adapter_spec import initial_adapter, new_spec
from nomoat.lora.model.files import content_hash
from nomoat.simulations.run_folder import config_text
from nomoat.simulations.scenario import Scenario

ROOT = Path(__file__).parents[2]
COMPAT = ROOT / "tests" / "compat"
MADE_AT = "/made/here"
PASSPHRASE = "seven dull words that nobody will guess"
# Commands that train, wait for a network or a browser, or change the machine they are typed on.
ELSEWHERE = re.compile(
    r"nomoat (try|init|up|down|page link|status --web|join|leave|agree|chat|serve|simulate|compare|"
    r"data preview|adapter (export|diff|combine|verify --dir \./tried)|doctor|service install)\b"
)
TRAINS = re.compile(r"nomoat (simulate|try)\b")
# What is of a reader's own community, in the guide and here.
OWN = {
    "1a2b3c4d": "{issued}",
    "rollback 12": "rollback 0",
    "hold 11": "hold 0",
    "release 11": "release 0",
}


def lines(guide: str) -> list[str]:
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder of whoever reads a guide: a community called town, and ada's home."""
    with tarfile.open(COMPAT / "people.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    (tmp_path / "community").rename(tmp_path / "town")
    shutil.copytree(COMPAT / "model", tmp_path / "model")
    shutil.copy(COMPAT / "rows.jsonl", tmp_path)
    for path in [tmp_path / "town/community.toml", *tmp_path.rglob("settings.toml")]:
        path.write_text(path.read_text().replace(MADE_AT, str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "ada"))
    return tmp_path


@pytest.fixture
def studied(here: Path) -> Path:
    """The same folder of a researcher: three finished runs, what `try` kept, and a private part."""
    base = str(here / "model")
    adapter = Adapter(new_spec(base, 4, 8.0), np.zeros(new_spec(base, 4, 8.0).size, np.float32))
    for seed, name in enumerate(("one", "two", "three")):
        run = here / "runs" / name
        save_folder(adapter, base, run / "adapter", "# A run\n", content_hash(here / "model"))
        scenario = Scenario(model=base, rounds=1, seed=seed)
        (run / "config.toml").write_text(config_text(scenario, []), "utf-8")
        losses = ({"round": n, "loss": 3.0 - n, "seconds": {}} for n in range(2))
        (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in losses))
        each_round = {f"bytes_{way}_per_volunteer_per_round": 1 for way in ("up", "down")}
        (run / "summary.json").write_text(json.dumps({"community": {"loss": 2.0}, **each_round}))
    shutil.copytree(here / "town", here / "tried" / "community")
    [joined] = Home(here / "ada").joined()
    [kept] = (joined.root / "adapters").glob("*.adapter")
    spec = lineage.from_file(kept.read_bytes(), bytes.fromhex(kept.stem), "ada").spec
    own = PrivateAdapter(initial_adapter(spec, b"own"), ())
    PrivateAdapterFile(joined.personal_states).save(own)
    return here


def test_what_the_researchers_guide_says_of_finished_runs_works_as_written(studied: Path) -> None:
    looked = [line for line in lines("researcher") if not TRAINS.match(line)]
    assert len(looked) >= 5
    for line in looked:
        words = shlex.split(line)[1:]
        if "--eval" in words:
            words += ["--seq-len", "128"]  # all that this tiny model reads
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception}"
    assert "three" in (studied / "comparison.html").read_text("utf-8")
    assert (studied / "both" / "adapter_model.safetensors").is_file()
    assert (studied / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("guide", ["volunteer", "coordinator"])
def test_what_a_guide_says_to_type_works_as_it_is_written(here: Path, guide: str) -> None:
    runner, issued, typed = CliRunner(), "", 0
    waiting = ["volunteers", "hold", "ada", "--dir", "town"]  # so that the guide may approve it
    assert runner.invoke(app, waiting).exit_code == 0
    for line in lines(guide):
        if ELSEWHERE.match(line):
            continue
        for written, own in OWN.items():
            line = line.replace(written, own.format(issued=issued))  # noqa: PLW2901
        answers = "y\n" if " erase " in line else f"{PASSPHRASE}\n" * 2
        done = runner.invoke(app, shlex.split(line)[1:], input=answers)
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception}"
        if "--list" in line:
            issued = re.findall(r"\b[0-9a-f]{8,32}\b", done.output)[0]
        typed += 1
    assert typed >= 8
