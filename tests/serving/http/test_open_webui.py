"""What Open WebUI 0.12.4 was seen to send, answered as it needs to be."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.serving.conftest import KEY

TITLE = """### Task:
Generate a concise title summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: hello
ASSISTANT: hi
</chat_history>"""


@pytest.fixture
def webui(url: str) -> Any:
    """A client with the headers of Open WebUI's own."""
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "Python/3.11 aiohttp/3.14.5"}
    encodings = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate, br"}
    with httpx.Client(base_url=url, headers=headers | encodings, trust_env=False) as client:
        yield client


def test_a_connection_is_checked_by_the_list_of_models_and_a_wrong_key_is_said(
    webui: httpx.Client,
) -> None:
    listed = webui.get("/v1/models")
    assert [model["id"] for model in listed.json()["data"]][:2] == ["base", "community"]
    assert {model["object"] for model in listed.json()["data"]} == {"model"}
    wrong = webui.get("/v1/models", headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_question_typed_into_the_page_is_streamed_with_its_usage(webui: httpx.Client) -> None:
    asked = {
        "stream": True,
        "model": "community",
        "messages": [{"role": "user", "content": "Say hi."}],
        "stream_options": {"include_usage": True},
        "max_tokens": 6,
        "temperature": 0.2,
        "stop": ["\n\n"],
        "seed": 3,
    }
    answer = webui.post("/v1/chat/completions", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    *chunks, last = lines[:-1]
    assert lines[-1] == "[DONE]"
    assert json.loads(last)["usage"]["completion_tokens"] <= 6
    told = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert told[0]["delta"]["role"] == "assistant"
    assert told[-1]["finish_reason"] in ("length", "stop")


def test_a_title_for_the_chat_is_asked_for_without_a_stream(webui: httpx.Client) -> None:
    message = {"role": "user", "content": TITLE}
    asked = {"model": "base", "messages": [message], "stream": False, "max_tokens": 4}
    answer = webui.post("/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 4
