"""Pretraining in miniature: the data are clean and the folder can be loaded."""

import csv
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nomoat.simulations.pocket.card import PretrainingRun
from nomoat.simulations.pocket.packages import PackageUnusable, collect, read_list
from nomoat.simulations.pocket.pretrain import pretrain
from nomoat.simulations.pocket.training import Recipe, epoch_batches, learning_rate

STANDARD = ["Open the file and return a stream.", "Close the file if it is open."]
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TINY = Recipe(
    steps=6, vocabulary=300, hidden=16, layers=1, heads=2, intermediate=32, warmup_steps=1
)


def install(site: Path, name: str, licence: str, sources: dict[str, str]) -> None:
    """Lay a distribution out as an installer does: its files, its metadata, its record."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    for file, source in sources.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{licence}")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in sources))


def module(*summaries: str) -> str:
    return "".join(f'def f{i}(a, b):\n    """{text}"""\n' for i, text in enumerate(summaries))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two packages, some of whose text is the standard library's or each other's."""
    copied = [*STANDARD, "Flush what is left.", "Something of its own here."]
    sources = {
        "box/__init__.py": module(*(f"Put {number} things into it." for number in NUMBERS)),
        "box/files.py": module("open the  file and return a STREAM.", "Weigh the open box."),
        "box/iocopy.py": module(*copied),
        "box/_vendor/other.py": module("Vendored text of another project."),
        "box/tests/test_box.py": module("Text of a test that nobody reads."),
    }
    install(tmp_path, "box", "License-Expression: MIT\n", sources)
    classifiers = (
        "Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: BSD License\n"
    )
    install(
        tmp_path, "lid", classifiers, {"lid.py": module("Weigh the open box.", "Lift the lid up.")}
    )
    return tmp_path


def known() -> list[str]:
    return [*STANDARD, "Flush what is left."]


def summaries(site: Path, *names: str) -> list[str]:
    packages = collect(names, known(), search=[str(site)])
    return [item.summary for package in packages for item in package.docstrings]


def test_no_text_of_the_standard_library_is_learnt(site: Path) -> None:
    found = {" ".join(text.split()).casefold() for text in summaries(site, "box", "lid")}
    assert found.isdisjoint(text.casefold() for text in known())
    assert "something of its own here." not in found  # its module is a copy


def test_tests_and_vendored_code_are_left_out(site: Path) -> None:
    found = summaries(site, "box", "lid")
    assert not any("Vendored" in text or "test" in text for text in found)


def test_what_two_packages_say_is_learnt_once(site: Path) -> None:
    found = summaries(site, "box", "lid")
    assert len(found) == len(set(found)) == 12
    assert "Lift the lid up." in found


def test_licences_are_read_from_the_metadata(site: Path) -> None:
    packages = collect(["box==1.0", "lid"], [], search=[str(site)])
    assert [(package.name, package.version, package.licence) for package in packages] == [
        ("box", "1.0", "MIT"),
        ("lid", "1.0", "BSD License"),
    ]


@pytest.mark.parametrize(
    "licence",
    [
        "License-Expression: GPL-3.0-only\n",
        "License-Expression: MPL-2.0 AND MIT\n",
        "Classifier: License :: OSI Approved :: GNU Lesser General Public License v3\n",
        "License: commercial\n",
        "",
    ],
)
def test_a_package_that_is_not_plainly_permissive_is_refused(tmp_path: Path, licence: str) -> None:
    install(tmp_path, "closed", licence, {"closed.py": module("Not for everyone to learn.")})
    with pytest.raises(PackageUnusable, match="closed states the licence"):
        collect(["closed"], [], search=[str(tmp_path)])


def test_a_missing_package_or_another_version_is_refused(site: Path) -> None:
    with pytest.raises(PackageUnusable, match="absent is not installed"):
        collect(["absent"], [], search=[str(site)])
    with pytest.raises(PackageUnusable, match=r"box is 1\.0, the list asks for 2\.0"):
        collect(["box==2.0"], [], search=[str(site)])


def test_a_list_may_hold_comments(tmp_path: Path) -> None:
    path = tmp_path / "packages.txt"
    path.write_text("# why\n\nbox==1.0  # and why\nlid\n")
    assert read_list(path) == ("box==1.0", "lid")


def test_an_epoch_is_every_document_once_within_the_limit() -> None:
    documents = [[index] * (1 + index % 7) for index in range(100)]
    batches = epoch_batches(documents, 20, random.Random(0))
    assert sorted(document for batch in batches for document in batch) == sorted(documents)
    assert max(len(batch) * max(map(len, batch)) for batch in batches) <= 20


def test_a_document_longer_than_a_batch_gets_its_own() -> None:
    assert sorted(map(len, epoch_batches([[1], [2] * 30], 20, random.Random(0)))) == [1, 1]


def test_the_learning_rate_warms_up_and_falls() -> None:
    recipe = Recipe(steps=1000, warmup_steps=100)
    rates = [learning_rate(recipe, step) for step in range(recipe.steps)]
    assert rates[0] < 0.02 * recipe.learning_rate
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.05 * recipe.learning_rate, rel=0.01)


def tiny_run(site: Path, out: Path) -> PretrainingRun:
    threads = torch.get_num_threads()
    try:
        return pretrain(collect(["box", "lid"], [], search=[str(site)]), out, TINY)
    finally:
        torch.set_num_threads(threads)


def test_a_tiny_run_gives_a_folder_that_loads(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = tiny_run(site, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    text = "f1(a, b)\nPut ünusual things into it."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert model(torch.tensor([tokenizer.encode(text)])).logits.isfinite().all()
    with (out / "loss.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [point.step for point in run.curve] == list(range(1, TINY.steps + 1))
    card = (out / "README.md").read_text()
    assert "| box | 1.0 | MIT |" in card
    assert "| lid | 1.0 | BSD License |" in card


def test_a_run_repeats_itself(site: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert tiny_run(site, first).curve == tiny_run(site, second).curve
    for name in ("model.safetensors", "tokenizer.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
