"""Answers under several adapters at once are those each adapter gives alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.inference.peft_engine import PeftEngine
from nomoat.lora.inference.requests import (
    BASE,
    ContextExceeded,
    Ended,
    Failed,
    Piece,
    Question,
    Sampling,
)

PROMPTS = ((1, 40, 51), (1, 72, 90, 101, 33, 60, 61), (1, 20))
GREEDY = Sampling(12)


def generated(
    base: Any, adapter: Adapter | None, prompt: Sequence[int], ends: set[int]
) -> list[int]:
    """The slow twin: transformers' and PEFT's own generation, one row, one adapter."""
    import torch

    from nomoat.lora.model.adapter_slot import attach, detach, swap

    model = base.model
    if adapter is not None:
        model = attach(base, adapter.spec)
        swap(model, adapter)
    try:
        ids = torch.tensor([list(prompt)])
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=GREEDY.max_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
            eos_token_id=sorted(ends),
        )[0, len(prompt) :].tolist()
    finally:
        if adapter is not None:
            detach(model)
    return [int(token) for token in found]


def questions(voices: dict[str, Adapter], sampling: Sampling = GREEDY) -> list[Question]:
    return [Question(prompt, voice, sampling) for voice in (BASE, *voices) for prompt in PROMPTS]


def test_every_voice_answers_as_transformers_and_peft_generate(
    engine: PeftEngine, base: Any, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = questions(voices)
    answers = [heard.words for heard in ask(engine, asked)]
    ends = {2}
    for question, answer in zip(asked, answers, strict=True):
        ids = generated(base, voices.get(question.voice), question.prompt, ends)
        expected = base.tokenizer.decode(
            [i for i in ids if i not in ends], skip_special_tokens=True
        )
        assert answer == expected.replace("\N{REPLACEMENT CHARACTER}", "")
    assert len(set(answers)) > len(PROMPTS)  # the voices differ


def test_a_mixed_batch_gives_every_row_what_it_gets_alone(
    engine: PeftEngine, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = questions(voices)
    alone = [ask(engine, [question])[0].text for question in asked]
    # 24 rows do not fit at once: some join a batch that is on its way.
    together = [heard.text for heard in ask(engine, asked + asked)]
    assert together == alone + alone


def test_many_threads_ask_and_none_gets_anothers_answer(
    engine: PeftEngine, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = questions(voices)
    alone = {question: ask(engine, [question])[0].text for question in asked}
    wrong: list[Question] = []

    def client(own: Sequence[Question]) -> None:
        for question in own:
            if ask(engine, [question])[0].text != alone[question]:
                wrong.append(question)

    clients = [threading.Thread(target=client, args=(asked[k:] + asked[:k],)) for k in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong


def test_the_end_says_why_and_how_much(engine: PeftEngine, ask: Callable[..., Any]) -> None:
    (heard,) = ask(engine, [Question(PROMPTS[1], "v2", Sampling(7))])
    assert heard.end == Ended("length", 7, 7)
    text = heard.text
    assert len(text) > 3
    (heard,) = ask(engine, [Question(PROMPTS[1], "v2", Sampling(7, stop=(text[2:4],)))])
    assert heard.text == text[:2]
    assert isinstance(heard.end, Ended)
    assert heard.end.reason == "stop"


def test_log_probabilities_are_the_models(
    engine: PeftEngine, base: Any, ask: Callable[..., Any]
) -> None:
    import torch

    (heard,) = ask(engine, [Question(PROMPTS[1], BASE, Sampling(1, logprobs=3))])
    assert heard.end
    (told,) = next(event for event in heard.events if isinstance(event, Piece)).logprobs
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([list(PROMPTS[1])])).logits[0, -1]
    values, _ = torch.log_softmax(logits, -1).topk(3)
    assert told.logprob == pytest.approx(float(values[0]), abs=1e-4)
    assert [value for _, value in told.others] == pytest.approx(values.tolist(), abs=1e-4)


def test_one_seed_draws_one_answer(engine: PeftEngine, ask: Callable[..., Any]) -> None:
    drawn = Sampling(12, temperature=1.5, top_p=0.9, seed=7)
    first = ask(engine, [Question(PROMPTS[0], "v0", drawn)])[0].text
    others = [Question(PROMPTS[1], "v1", replace(drawn, seed=k)) for k in range(3)]
    again = ask(engine, [*others, Question(PROMPTS[0], "v0", drawn)])[-1].text
    assert again == first
    texts = {
        ask(engine, [Question(PROMPTS[0], "v0", replace(drawn, seed=k))])[0].text for k in range(6)
    }
    assert len(texts) > 1


def test_a_prompt_as_long_as_the_context_is_refused(engine: PeftEngine) -> None:
    whole = tuple([5] * engine.context)
    with pytest.raises(ContextExceeded, match="256 tokens"):
        engine.submit(Question(whole, BASE, GREEDY), lambda event: None)
    with pytest.raises(UsageError, match="not offered"):
        engine.submit(Question((1,), "v9", GREEDY), lambda event: None)


def test_an_answer_ends_with_the_context(engine: PeftEngine, ask: Callable[..., Any]) -> None:
    prompt = tuple([5] * (engine.context - 2))
    (heard,) = ask(engine, [Question(prompt, BASE, Sampling(100))])
    assert isinstance(heard.end, Ended)
    assert heard.end.completion_tokens <= 2


def test_who_hangs_up_costs_no_further_token_and_disturbs_nobody(
    engine: PeftEngine, ask: Callable[..., Any]
) -> None:
    events: list[Any] = []
    begun = threading.Event()

    def deliver(event: Any) -> None:
        events.append(event)
        begun.set()

    running = engine.submit(Question(PROMPTS[0], "v0", Sampling(200)), deliver)
    assert begun.wait(120)
    running.cancel()
    (heard,) = ask(engine, [Question(PROMPTS[0], "v0", GREEDY)])
    assert heard.text
    before = len(events)
    assert ask(engine, [Question(PROMPTS[1], "v1", GREEDY)])[0].text
    assert len(events) == before < 200


def test_an_answer_ends_under_the_adapter_it_began_with(
    own_base: Any, voices: dict[str, Adapter], ask: Callable[..., Any]
) -> None:
    asked = Question(PROMPTS[0], "v0", Sampling(40))
    engine = PeftEngine(own_base)
    engine.offer(voices)
    alone = ask(engine, [asked])[0].text
    begun, go_on = threading.Event(), threading.Event()
    pieces: list[str] = []
    over = threading.Event()

    def deliver(event: Any) -> None:
        begun.set()
        go_on.wait(120)
        if isinstance(event, Piece):
            pieces.append(event.text)
        else:
            over.set()

    engine.submit(asked, deliver)
    assert begun.wait(120)
    engine.offer({"v1": voices["v1"]})  # v0 is offered no more
    go_on.set()
    assert over.wait(120)
    assert "".join(pieces) == alone
    with pytest.raises(UsageError, match="not offered"):
        engine.submit(asked, deliver)
    assert ask(engine, [Question(PROMPTS[0], "v1", GREEDY)])[0].text
    engine.close()


def test_a_failure_is_told_and_the_engine_goes_on(
    own_base: Any, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PeftEngine(own_base)
    (good,) = ask(engine, [Question(PROMPTS[0], BASE, GREEDY)])
    assert good.text
    from nomoat.lora.inference import peft_engine

    with monkeypatch.context() as broken:

        def fails(*_: Any) -> int:
            raise RuntimeError("out of\nmemory")

        broken.setattr(peft_engine.sampled, "choose", fails)
        (bad,) = ask(engine, [Question(PROMPTS[0], BASE, GREEDY)])
        assert bad.end == Failed("out of memory")
    (again,) = ask(engine, [Question(PROMPTS[0], BASE, GREEDY)])
    assert again.text == good.text
    engine.close()
    with pytest.raises(UsageError):
        engine.submit(Question(PROMPTS[0], BASE, GREEDY), lambda event: None)


def test_an_adapter_of_another_model_is_refused_and_the_engine_goes_on(
    own_base: Any, spec: AdapterSpec, ask: Callable[..., Any]
) -> None:
    import numpy as np

    layers = tuple(replace(layer, d_in=layer.d_in + 1) for layer in spec.layers)
    wrong = replace(spec, layers=layers)
    engine = PeftEngine(own_base)
    with pytest.raises(BadData, match="another base"):
        engine.offer({"x": Adapter(wrong, np.zeros(wrong.size, np.float32))})
    (answer,) = ask(engine, [Question(PROMPTS[0], BASE, GREEDY)])
    assert isinstance(answer.end, Ended)
    engine.close()
