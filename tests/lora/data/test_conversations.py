"""Data people already have is read as it is, and what is broken is named with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.lora.data import normal_form
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.files import streams
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read

ASKED = (ChatTurn("user", "q"), ChatTurn("assistant", "a"))
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def _jsonl(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": CHAT}, ASKED),
        ({"messages": CHAT, "prompt": "other"}, ASKED),
        ({"prompt": "q", "completion": "a"}, ASKED),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, ASKED),
        ({"prompt": "q", "response": "a"}, ASKED),
        ({"instruction": "q", "output": "a"}, ASKED),
        ({"instruction": "q", "input": "", "output": "a"}, ASKED),
        (
            {"instruction": "q", "input": "i", "output": "a"},
            (ChatTurn("user", "q\n\ni"), ChatTurn("assistant", "a")),
        ),
        (
            {"instruction": "q", "context": "c", "response": "a", "category": "x"},
            (ChatTurn("user", "q\n\nc"), ChatTurn("assistant", "a")),
        ),
        (
            {"instruction": "q", "instances": [{"input": "i", "output": "a"}], "id": "t"},
            (ChatTurn("user", "q\n\ni"), ChatTurn("assistant", "a")),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            ASKED,
        ),
        ({"question": "q", "answer": "a"}, ASKED),
        ({"input": "q", "output": "a"}, ASKED),
        ({"text": "just text"}, (ChatTurn("text", "just text"),)),
        (
            {
                "messages": [
                    CHAT[0],
                    {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
                ]
            },
            ASKED,
        ),
        (
            {"messages": [{"role": "developer", "content": "s"}, *CHAT]},
            (ChatTurn("system", "s"), *ASKED),
        ),
    ],
)
def test_every_layout_is_found_from_its_columns(
    tmp_path: Path, row: dict[str, Any], turns: tuple[ChatTurn, ...]
) -> None:
    found = read(_jsonl(tmp_path / "d.jsonl", row))
    assert found.conversations[0].turns == turns
    assert found.dropped == ()


def test_other_scalar_columns_become_fields(tmp_path: Path) -> None:
    row = {"text": "x", "speaker": "Romeo", "act": 2, "score": 0.5, "none": None, "list": [1]}
    (conversation,) = read(_jsonl(tmp_path / "d.jsonl", row)).conversations
    assert conversation.fields == {"speaker": "Romeo", "act": "2", "score": "0.5"}
    assert conversation.origin == f"{tmp_path}/d.jsonl:1"


def _write_parquet(path: Path, values: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(values), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.json", lambda p: p.write_text(json.dumps([{"prompt": "q", "completion": "a"}]))),
        ("d.json", lambda p: p.write_text('{"data": [{"prompt": "q", "completion": "a"}]}')),
        ("d.json", lambda p: p.write_text(json.dumps({"messages": CHAT}, indent=1))),
        ("d.csv", lambda p: p.write_text("prompt,completion\nq,a\n")),
        ("d.csv", lambda p: p.write_text("prompt;completion\nq;a\n")),
        ("d.csv", lambda p: p.write_bytes(b"\xef\xbb\xbfprompt,completion\r\nq,a\r\n")),
        (
            "d.csv",
            lambda p: p.write_text('messages\n"' + json.dumps(CHAT).replace('"', '""') + '"\n'),
        ),
        ("d.tsv", lambda p: p.write_text("prompt\tcompletion\nq\ta\n")),
        ("d.parquet", lambda p: _write_parquet(p, [{"prompt": "q", "completion": "a"}])),
        ("d.parquet", lambda p: _write_parquet(p, [{"messages": CHAT}])),
        ("d.JSONL", lambda p: p.write_text(json.dumps({"messages": CHAT}) + "\n\n")),
    ],
)
def test_every_file_kind_gives_the_same_conversation(
    tmp_path: Path, name: str, write: Callable[[Path], Any]
) -> None:
    write(tmp_path / name)
    assert read(tmp_path / name).conversations == (Conversation(ASKED, {}, ""),)


def test_text_files_are_read_paragraph_by_paragraph(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("one\ntwo\n\n\nthree\n")
    found = read(tmp_path / "d.txt").conversations
    assert [c.turns[0] for c in found] == [ChatTurn("text", "one\ntwo"), ChatTurn("text", "three")]
    assert [c.origin.rpartition(":")[2] for c in found] == ["1", "5"]


def test_a_folder_is_read_in_name_order_and_hidden_files_are_not(tmp_path: Path) -> None:
    _jsonl(tmp_path / "b.jsonl", {"text": "second"})
    (tmp_path / "sub").mkdir()
    _jsonl(tmp_path / "a.jsonl", {"text": "first"})
    _jsonl(tmp_path / "sub" / "c.jsonl", {"prompt": "q", "completion": "a"})
    _jsonl(tmp_path / ".d.jsonl", {"text": "never"})
    (tmp_path / "README.md").write_text("not data")
    found = read(tmp_path)
    assert [c.turns[0].text for c in found.conversations] == ["first", "second", "q"]
    assert found.layout == "text | prompt, completion"


def test_rows_without_anything_to_learn_are_dropped_with_reason_count_and_place(
    tmp_path: Path,
) -> None:
    path = _jsonl(
        tmp_path / "d.jsonl",
        {"prompt": "q", "completion": "a"},
        {"prompt": "q", "completion": "  "},
        {"text": ""},
        {"prompt": "q", "completion": None},
        {"messages": [{"role": "narrator", "content": "x"}]},
        {"text": "half \ud800 pair"},
    )
    found = read(path)
    assert len(found.conversations) == 1
    assert [(d.reason, d.count, d.first.rpartition(":")[2]) for d in found.dropped] == [
        ("has no reply to learn from", 1, "2"),
        ("is empty", 2, "3"),
        ("has a turn of the role 'narrator'", 1, "5"),
        ("has half of a surrogate pair, which is not Unicode text", 1, "6"),
    ]


GOOD = b'{"text": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", GOOD + b'{"text": \n', r"d\.jsonl:2: not valid JSON: .*column"),
        ("d.jsonl", GOOD + b'{"text": "\xff"}\n', r"d\.jsonl:2: byte 11 \(0xff\) is not UTF-8"),
        ("d.jsonl", GOOD + b"[1, 2]\n", r"d\.jsonl:2: a row must be an object .* list"),
        ("d.jsonl", GOOD + b'{"foo": 1, "bar": 2}\n', r"d\.jsonl:2: columns bar, foo .*messages"),
        (
            "d.jsonl",
            GOOD + b'{"prompt": "p", "chosen": "x", "rejected": "y"}\n',
            r"d\.jsonl:2: .* preference pairs, .* \(planned: preference training\)",
        ),
        ("d.jsonl", GOOD + b'{"text": {"a": 1}}\n', r"d\.jsonl:2: column text is a dict, not text"),
        (
            "d.jsonl",
            GOOD + b'{"messages": "x"}\n',
            r"d\.jsonl:2: column messages is text, not a li",
        ),
        ("d.jsonl", GOOD + b'{"messages": [1]}\n', r"d\.jsonl:2: a turn in messages must be an ob"),
        ("d.jsonl", GOOD + b'{"messages": [{}]}\n', r"d\.jsonl:2: .* neither a role nor a from"),
        ("d.jsonl", GOOD + b"[" * 200_000, r"d\.jsonl:2: not usable JSON: nested too deeply"),
        ("d.jsonl", GOOD + b'{"text": ' + b"1" * 9000 + b"}", r"d\.jsonl:2: not usable JSON"),
        ("d.jsonl", b"", r"d\.jsonl is empty"),
        ("d.json", b"\n \n", r"d\.json is empty"),
        ("d.json", b'[{"text": "x"},\n oops]', r"d\.json: not valid JSON: .*line 2"),
        ("d.json", b"3", r"d\.json: a data file holds a list of objects"),
        ("d.csv", b"text\nx\ny,z\n", r"d\.csv:3: 2 cells where the header has 1"),
        ("d.csv", b'text\nx\n"never ends\n', r"d\.csv:3: not valid CSV"),
        ("d.csv", b"", r"d\.csv is empty"),
        ("d.parquet", b"PAR1 nonsense", r"d\.parquet:1: not readable as Parquet"),
        ("d.xlsx", b"", r"d\.xlsx: \.xlsx cannot be read; .*\.jsonl.* can"),
        (
            "d.jsonl",
            b'{"text": ""}\n',
            r"d\.jsonl holds no usable row: is empty \(1, .*d\.jsonl:1\)",
        ),
    ],
)
def test_malformed_data_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=message) as refusal:
        read(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_missing_files_and_folders_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"there is no file or folder .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(BadData, match="holds no data file"):
        read(tmp_path)


def test_an_endless_line_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1 << 20)
    (tmp_path / "d.jsonl").write_bytes(GOOD + b'{"text": "' + b"x" * (3 << 20))
    with pytest.raises(BadData, match=r"d\.jsonl:2: the line is longer than 1 MiB"):
        read(tmp_path / "d.jsonl")
    (tmp_path / "d.csv").write_bytes(b'text\n"' + b"x\n" * (1 << 20))
    with pytest.raises(BadData, match=r"d\.csv:2: not valid CSV: field larger"):
        read(tmp_path / "d.csv")


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
SAID = WORDS.filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.one_of(
            st.builds(lambda t: (ChatTurn("text", t),), SAID),
            st.builds(lambda q, a: (ChatTurn("user", q), ChatTurn("assistant", a)), SAID, SAID),
        ),
        min_size=1,
        max_size=4,
    ),
    fields=st.dictionaries(WORDS.filter(lambda name: name != "messages"), WORDS, max_size=3),
)
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[ChatTurn, ...]],
    fields: dict[str, str],
) -> None:
    path = tmp_path_factory.mktemp("normal") / "d.jsonl"
    conversations = tuple(Conversation(turns, fields, "elsewhere:1") for turns in rows)
    write_jsonl(conversations, path)
    assert read(path).conversations == conversations


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    write_jsonl([Conversation(ASKED, {}, "")], path)
    before = path.read_bytes()

    def broken() -> Any:
        yield Conversation((ChatTurn("text", "new"),), {}, "")
        raise BadData("stop")

    with pytest.raises(BadData, match="stop"):
        write_jsonl(broken(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.jsonl"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NomoatError, match=r"cannot write .*d\.jsonl: No space left on device"):
        normal_form.write_jsonl([Conversation(ASKED, {}, "")], tmp_path / "d.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_can_be_printed_whatever_the_names_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"te\\ud800xt": "a"}\n')
    with pytest.raises(BadData, match="none of the layouts") as refusal:
        read(tmp_path / "d.jsonl")
    assert str(refusal.value).encode()
