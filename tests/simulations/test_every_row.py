"""Every row that is read is trained on, held out, or counted with a reason, and nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.lora.data import lengths
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.data.reading import read
from nomoat.lora.model.base_model import load_tokenizer
from nomoat.simulations.measured_rows import check_dropped, usable_rows
from nomoat.simulations.pocket import MODEL_DIR
from nomoat.simulations.population import Population, gather
from nomoat.simulations.scenario import Scenario


@pytest.fixture(scope="module")
def make_tokenizer() -> Callable[..., Any]:
    """The pocket model's tokenizer, with a chat template if one is given."""

    @functools.cache
    def make(template: str | None = None) -> Any:
        tokenizer = load_tokenizer(str(MODEL_DIR))
        tokenizer.chat_template = template
        return tokenizer

    return make


CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Measuring:
    """A pool of no processes that measures rows."""

    def __init__(self, tokenizer: Any, context: int | None = None) -> None:
        self.encoder, self.context = Encoder.of(tokenizer, lengths.UNCUT), context

    def submit(self, job: Any) -> Future[Any]:
        done: Future[Any] = Future()
        rows = read(job.shard).conversations
        done.set_result((lengths.measure(self.encoder, rows), self.context))
        return done


def population(scenario: Scenario, folder: Path, pool: Any) -> Population:
    dataset = read(Path(scenario.data))
    usable = usable_rows(scenario, dataset, pool, str(MODEL_DIR), folder)
    found = gather(scenario, usable.dataset, folder)
    check_dropped(scenario, found, usable)
    return found


def said(question: Any, answer: Any, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


GOOD = [
    lambda n: said(f"q {n}", f"a {n}"),
    lambda n: {"prompt": f"q {n}", "completion": f"a {n}"},
    lambda n: {"text": f"text {n} " * (n % 30 + 1)},
    lambda n: {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    lambda n: {"instruction": f"i {n}", "input": "", "output": "o", "history": [["q", "a"]]},
    lambda n: said("q", "<think>\nt\n</think>\n\na", system="s"),
]
ODD = [
    lambda n: said("q", ""),
    lambda n: said("q " * 300, "a"),  # no room for a reply
    lambda n: said("q", "a " * 300),  # cut
    lambda n: said("q", None),
    lambda n: said([{"type": "image_url"}], "a"),
    lambda n: {"messages": [{"role": "narrator", "content": "x"}]},
    lambda n: {"messages": [{"role": "assistant", "content": "first"}]},
    lambda n: {"text": ""},
    lambda n: {"text": "half \ud800"},
    lambda n: {"prompt": "q", "completion": None},
    lambda n: {"prompt": "q", "completion": "a", "train": False},
    lambda n: {"prompt": "q", "completion": "a", "images": ["x.png"]},
    lambda n: {"messages": []},
]
ROW = st.tuples(
    st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD), st.sampled_from(ODD)),
    st.sampled_from(["ada", "bob", "cy", None, ""]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(ROW, min_size=12, max_size=60),
    by=st.sampled_from([None, "who"]),
    eval_rows=st.sampled_from([1, 64]),
    templated=st.booleans(),
)
def test_rows_read_are_rows_trained_held_out_and_counted(
    tmp_path_factory: pytest.TempPathFactory,
    make_tokenizer: Callable[..., Any],
    rows: list[tuple[Callable[[int], dict[str, Any]], str | None]],
    by: str | None,
    eval_rows: int,
    templated: bool,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    data = folder / "d.jsonl"
    lines = [json.dumps({**make(n), "who": who}) for n, (make, who) in enumerate(rows)]
    data.write_text("\n".join(lines))
    scenario = Scenario(
        data=str(data), by=by, seq_len=64, eval_rows=eval_rows, volunteers=2,
        allow_dropping=True,
    )  # fmt: skip
    pool = Measuring(make_tokenizer(CHATML if templated else None))
    try:
        found = population(scenario, folder, pool)
    except NomoatError as refusal:  # too few for two volunteers
        assert "\n" not in str(refusal)  # noqa: PT017 - both ends are right
        return
    counted = sum(each.count for each in (*found.dropped, *found.set_aside))
    assert found.read == len(rows)
    assert found.read == found.trained + found.held_out + counted
    encoder = Encoder.of(pool.encoder.tokenizer, 64)
    for member in found.members:
        files = {member.train: member.train_rows, member.held_out: member.held_out_rows}
        for file, told in files.items():
            kept = read(file).conversations
            assert len(kept) == told
            assert not encoder.encode_all(kept).dropped  # a worker drops nothing further


def write(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_more_than_a_fifth_dropped_asks_for_a_decision_and_says_what_would_mend_it(
    tmp_path: Path, make_tokenizer: Callable[..., Any]
) -> None:
    pool = Measuring(make_tokenizer())
    data = write(tmp_path, *[said("q " * 200, "a")] * 5, *[said("q", f"a {n}") for n in range(14)])
    scenario = Scenario(data=data, volunteers=2, seq_len=64)
    with pytest.raises(BadData, match=r"5 of 19 rows .*--allow-dropping .*--seq-len \d+ leaves"):
        population(scenario, tmp_path, pool)
    allowed = scenario.model_copy(update={"allow_dropping": True})
    assert population(allowed, tmp_path, pool).trained
    unasked = scenario.model_copy(update={"seq_len": 0})
    assert not population(unasked, tmp_path, pool).dropped
    few = write(tmp_path, *[said("q " * 200, "a")] * 3, *[said("q", f"a {n}") for n in range(14)])
    (dropped,) = population(Scenario(data=few, volunteers=2, seq_len=64), tmp_path, pool).dropped
    assert (dropped.count, dropped.first) == (3, f"{few}:1")


def test_rows_without_the_field_are_counted_with_the_rest(
    tmp_path: Path, make_tokenizer: Callable[..., Any]
) -> None:
    rows = [said("q", f"a {n}", who="ada" if n % 2 else "bob") for n in range(20)]
    data = write(tmp_path, *rows, said("q", "a", who=None), said("q", "a"))
    found = population(Scenario(data=data, by="who"), tmp_path, Measuring(make_tokenizer()))
    assert [(d.reason, d.count) for d in found.dropped] == [("has no field 'who'", 2)]


def test_the_length_follows_the_data_within_what_the_model_reads(
    tmp_path: Path, make_tokenizer: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer()
    rows = read(Path(write(tmp_path, *[said("q", "ab " * 600)] * 20))).conversations
    found = lengths.measure(Encoder.of(tokenizer, lengths.UNCUT), rows)
    needed = found.holding()
    assert needed > 512
    assert lengths.choose(found, None).seq_len == 1024
    assert lengths.choose(found, 48).seq_len == 48
    assert "reads 48" in lengths.choose(found, 48).reason
    assert lengths.choose(None, None).seq_len == lengths.USUAL
    assert lengths.choose(found, None, lambda length: length <= 300).seq_len == 256
    assert (found.cut(64), found.end_tokens(64), found.cut(1024)) == (20, 0, 0)
    assert found.end_tokens(1024) == 20
