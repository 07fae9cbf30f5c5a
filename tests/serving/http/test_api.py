"""OpenAI's own client, and clients that behave badly, against a real server on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from nomoat.serving.sources.base_only import BaseOnly
from nomoat.serving.sources.source import BaseRef
from nomoat.serving.voices import EngineVoices
from tests.serving.conftest import KEY, Versions, server

openai = pytest.importorskip("openai")

ASKED: Any = [{"role": "user", "content": "def open(file, mode='r'):"}]
FOUR = ("base", "community@1", "community@2", "personal")


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    """The openai package's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120) as made:
        yield made


def ask(client: Any, model: str, **more: Any) -> Any:
    options = {"max_tokens": 12, "temperature": 0} | more
    return client.chat.completions.create(model=model, messages=ASKED, **options)


def post(url: str, path: str, body: Any, key: str = KEY) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/{path}", content=content, headers=headers, timeout=120)


def test_models_are_listed_and_named(client: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["base", "community", "community@2", "community@1", "personal"]
    assert client.models.retrieve("community@2").owned_by == "nomoat"


def test_an_answer_says_which_version_gave_it_and_what_it_cost(client: Any) -> None:
    answer = ask(client, "community")
    assert answer.model == "community@2"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    usage = answer.usage
    assert (usage.completion_tokens, usage.total_tokens) == (12, usage.prompt_tokens + 12)


def test_a_stream_is_the_same_answer_in_pieces(client: Any) -> None:
    whole = ask(client, "community").choices[0]
    chunks = list(ask(client, "community", stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.message.content
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.finish_reason
    assert not any(reasons[:-1])
    assert chunks[-1].usage.completion_tokens == 12
    assert not chunks[-1].choices


def test_stop_texts_several_answers_and_parts_of_content_are_understood(client: Any) -> None:
    whole = ask(client, "base").choices[0].message.content
    stop = whole[3:5]
    short = ask(client, "base", stop=[stop, "\x00"]).choices[0]
    assert (short.message.content, short.finish_reason) == (whole[: whole.find(stop)], "stop")
    several = ask(client, "base", n=3, temperature=1.5, seed=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in several.choices}) > 1
    again = ask(client, "base", n=3, temperature=1.5, seed=4)
    assert [c.message.content for c in again.choices] == [
        c.message.content for c in several.choices
    ]
    parts: Any = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "def "}, {"type": "text", "text": "f"}],
        },
    ]
    answer = client.chat.completions.create(
        model="base", messages=parts, max_tokens=2, extra_body={"nobody_knows": [1]}
    )
    assert answer.usage.completion_tokens >= 1


def test_log_probabilities_come_with_their_alternatives(client: Any) -> None:
    answer = ask(client, "community", logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for entry in content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob)  # greedy
    assert ask(client, "community").choices[0].logprobs is None


def test_texts_are_continued_from_text_and_from_tokens(client: Any) -> None:
    make = client.completions.create
    options: Any = {"model": "personal", "max_tokens": 8, "temperature": 0}
    both = make(prompt=["def a", "def b"], **options)
    assert [choice.index for choice in both.choices] == [0, 1]
    one = make(prompt="def b", logprobs=2, echo=True, **options).choices[0]
    assert one.text == "def b" + both.choices[1].text
    assert len(one.logprobs.tokens) == 8
    assert make(prompt=[5, 6, 7], **options).usage.prompt_tokens == 3
    streamed = make(prompt="def b", stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in streamed) == both.choices[1].text


def test_64_requests_at_once_are_answered_by_the_adapter_each_names(client: Any) -> None:
    alone = {name: ask(client, name).choices[0].message.content for name in FOUR}
    assert len(set(alone.values())) == len(FOUR)
    order = [FOUR[k % len(FOUR)] for k in range(64)]
    with ThreadPoolExecutor(len(order)) as pool:
        answers = list(pool.map(lambda name: ask(client, name).choices[0].message.content, order))
    wrong = [name for name, text in zip(order, answers, strict=True) if text != alone[name]]
    assert not wrong


def test_a_new_version_is_answered_under_without_a_restart(client: Any, source: Versions) -> None:
    before = ask(client, "community")
    source.newest = 3
    try:
        after = ask(client, "community")
        assert (before.model, after.model) == ("community@2", "community@3")
        assert after.choices[0].message.content != before.choices[0].message.content
        old = ask(client, "community@2").choices[0].message.content
        assert old == before.choices[0].message.content
    finally:
        source.newest = 2


def test_errors_are_those_that_clients_know(client: Any, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, "community@9")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as wrong:
        openai.OpenAI(base_url=f"{url}/v1", api_key="no", max_retries=0).models.list()
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="base", messages=[])
    assert empty.value.param == "messages"
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(openai.BadRequestError, match="image_url"):
        client.chat.completions.create(model="base", messages=image)
    long: Any = [{"role": "user", "content": "word " * 1000}]
    with pytest.raises(openai.BadRequestError) as overrun:
        client.chat.completions.create(model="base", messages=long)
    assert overrun.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="no token 99999"):
        client.completions.create(model="base", prompt=[99999])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{not json", 400),
        (b"[]", 400),
        (b'"\xff"', 400),
        ({"model": "base"}, 400),
        ({"model": "base", "messages": ASKED, "temperature": -1}, 400),
        ({"model": "base", "messages": ASKED, "max_tokens": 0}, 400),
        ({"model": 7, "messages": ASKED}, 400),
        ({"model": "../../etc/passwd", "messages": ASKED}, 404),
        (b" " * ((32 << 20) + 1), 413),
    ],
)
def test_a_bad_body_is_one_error_object_and_the_server_goes_on(
    body: Any, status: int, url: str, client: Any
) -> None:
    answer = post(url, "chat/completions", body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "Traceback" not in answer.text
    assert ask(client, "base", max_tokens=1).usage.completion_tokens == 1


def test_a_prompt_of_ten_megabytes_is_refused_before_it_is_split_into_tokens(
    url: str, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("10 MB were tokenised")

    monkeypatch.setattr(type(prompts), "_ids", never)
    for path, body in (
        ("chat/completions", {"messages": [{"role": "user", "content": "word " * (2 << 20)}]}),
        ("completions", {"prompt": "word " * (2 << 20)}),
    ):
        answer = post(url, path, {"model": "base", **body})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_clients_that_hang_up_stop_the_work_and_harm_nobody(
    client: Any, url: str, engine: Any
) -> None:
    expected = ask(client, "base").choices[0].message.content
    stream = ask(client, "community", max_tokens=400, stream=True)
    next(stream)
    stream.close()
    body = json.dumps({"model": "community", "messages": ASKED, "max_tokens": 400}).encode()
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    for _ in range(3):  # a client that wants a whole answer, and vanishes
        with socket.create_connection((host, int(port))) as line:
            line.sendall(head.encode() + body)
    assert ask(client, "base").choices[0].message.content == expected
    idle = threading.Event()
    for _ in range(600):  # the engine has let go of every row
        if not engine._answers and not engine._waiting:
            break
        idle.wait(0.05)
    assert not engine._answers


def test_only_named_pages_may_ask(url: str) -> None:
    def preflight(origin: str) -> httpx.Response:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx.options(f"{url}/v1/chat/completions", headers=headers)

    allowed = preflight("https://chat.example.org")
    assert allowed.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert "access-control-allow-origin" not in preflight("https://evil.example.org").headers
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_the_conformance_suite_for_chat_passes_but_for_tools_and_images() -> None:
    pytest.importorskip("llm_comply")
    from nomoat.lora.inference.peft_engine import PeftEngine
    from nomoat.lora.inference.prompts import Prompts
    from nomoat.lora.model.base_model import load
    from nomoat.simulations.pocket import MODEL_DIR

    base = load(str(MODEL_DIR), "cpu")
    engine = PeftEngine(base)
    voices = EngineVoices(engine, BaseOnly("pocket", BaseRef(str(MODEL_DIR), "pocket")))
    command = [sys.executable, "-m", "llm_comply.cli", "--format", "openai-chat", "--json"]
    with server(voices, Prompts.of(base.tokenizer)) as address:
        options = ["-u", f"{address}/v1", "-k", KEY, "-m", "base"]
        done = subprocess.run(
            [*command, *options], check=False, capture_output=True, text=True, timeout=200
        )
    engine.close()
    results = json.loads(done.stdout)["results"]
    failed = {result["id"] for result in results if result["status"] == "failed"}
    assert failed == {"chat-tool-calling", "chat-image-input"}
    assert sum(result["status"] == "passed" for result in results) >= 6


def test_an_address_that_is_taken_is_one_line(url: str) -> None:
    from nomoat.aggregation.errors import NomoatError
    from nomoat.serving.http.running import bound

    port = int(url.rpartition(":")[2])
    with (
        pytest.raises(NomoatError, match=f"cannot listen on 127.0.0.1:{port}"),
        bound("127.0.0.1", port),
    ):
        pass
    with pytest.raises(NomoatError, match="cannot listen"), bound("no.such.host.invalid", 0):
        pass
