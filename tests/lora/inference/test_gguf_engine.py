"""llama.cpp gives the answers of the engine that is always there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference.requests import BASE, ContextExceeded, Ended, Piece, Question, Sampling

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from nomoat.lora.export.factors import of_adapter
from nomoat.lora.export.llama_cpp.files import Named, WholeModel, write_adapter, write_model
from nomoat.lora.export.llama_cpp.layout import TensorLayout
from nomoat.lora.export.llama_cpp.vocabulary import Vocabulary
from nomoat.lora.export.turns import PLAIN
from nomoat.lora.export.weights import BaseWeights
from nomoat.lora.inference.gguf_engine import GgufEngine
from nomoat.lora.inference.llama_server import Setup
from nomoat.lora.inference.peft_engine import PeftEngine
from nomoat.lora.model.files import config

PROMPTS = ((1, 40, 51), (1, 72, 90, 101, 33, 60, 61))
SAID = Named("tiny", "tiny", bytes(32))


@pytest.fixture(scope="module")
def model_file(model_folder: Path, own_base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as GGUF."""
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    sizes = config(model_folder)
    vocabulary = Vocabulary.of(own_base.tokenizer, sizes["vocab_size"], ())
    weights = BaseWeights.open(model_folder)
    whole = WholeModel(TensorLayout.of(sizes), vocabulary, weights, PLAIN)
    write_model(file, whole, "f32", SAID)
    return file


@pytest.fixture(scope="module", params=[False, True], ids=["one server", "a server each"])
def fast(
    model_file: Path, model_folder: Path, voices: dict[str, Adapter], request: Any
) -> Iterator[GgufEngine]:
    """An engine that offers `voices`."""

    def write(voice: str, adapter: Adapter) -> Path:
        file = model_file.with_name(f"{voice}.gguf")
        write_adapter(file, TensorLayout.of(config(model_folder)), of_adapter(adapter), SAID)
        return file

    setup = Setup(model_file, context=256, slots=4, threads=1, exact=True)
    running = GgufEngine(setup, write, apart=request.param)
    running.offer(voices)
    yield running
    running.close()


def test_both_engines_give_the_same_answers_at_once_and_alone(
    fast: GgufEngine, engine: PeftEngine, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = [Question(p, voice, Sampling(10)) for voice in (BASE, *voices) for p in PROMPTS]
    expected = [heard.words for heard in ask(engine, asked)]
    assert [heard.words for heard in ask(fast, asked * 8)] == expected * 8  # 64 over four voices
    assert len(set(expected)) > len(PROMPTS)


def test_stop_length_usage_and_log_probabilities_are_told_alike(
    fast: GgufEngine, engine: PeftEngine, ask: Callable[..., Any]
) -> None:
    question = Question(PROMPTS[1], "v2", Sampling(6, logprobs=2))
    (slow,), (quick,) = ask(engine, [question]), ask(fast, [question])
    assert (quick.words, quick.end) == (slow.words, slow.end)
    first = [next(e for e in heard.events if isinstance(e, Piece)) for heard in (slow, quick)]
    assert first[0].logprobs[0].logprob == pytest.approx(first[1].logprobs[0].logprob, abs=1e-3)
    assert len(first[1].logprobs[0].others) == 2
    stop = slow.text[2:4]
    (quick,) = ask(fast, [Question(PROMPTS[1], "v2", Sampling(6, stop=(stop,)))])
    assert quick.text == slow.text[: slow.text.find(stop)]
    assert isinstance(quick.end, Ended)
    assert quick.end.reason == "stop"


def test_what_cannot_be_answered_is_refused_as_the_other_engine_does(fast: GgufEngine) -> None:
    with pytest.raises(ContextExceeded):
        fast.submit(Question(tuple([5] * 256), BASE, Sampling(4)), lambda event: None)
    with pytest.raises(UsageError, match="not offered"):
        fast.submit(Question((1,), "v9", Sampling(4)), lambda event: None)


def test_a_new_offer_is_answered_without_a_restart(
    fast: GgufEngine, engine: PeftEngine, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = Question(PROMPTS[1], "v2", Sampling(8))
    before = ask(fast, [asked])[0]
    fast.offer({"v2": voices["v2"]})
    assert ask(fast, [asked])[0].words == before.words == ask(engine, [asked])[0].words
    with pytest.raises(UsageError, match="not offered"):
        fast.submit(Question((1,), "v0", Sampling(4)), lambda event: None)
    fast.offer(voices)
    assert ask(fast, [Question(PROMPTS[1], "v0", Sampling(8))])[0].text


def test_an_adapter_that_llama_cpp_cannot_load_leaves_the_voices_there_are(
    fast: GgufEngine, voices: dict[str, Adapter], ask: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    written = fast._write
    monkeypatch.setattr(fast, "_write", lambda v, a: broken if v == "bad" else written(v, a))
    asked = Question(PROMPTS[1], "v0", Sampling(8))
    before = ask(fast, [asked])[0].words
    with pytest.raises(BadData, match="cannot load"):
        fast.offer({**voices, "bad": voices["v0"]})
    assert ask(fast, [asked])[0].words == before


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BadData, match="cannot load"):
        GgufEngine(Setup(file), lambda voice, adapter: file)
