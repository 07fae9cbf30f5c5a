"""Volunteers of different ranks, and what each keeps to itself, in a community of processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders import topic_rows
from nomoat.simulations.loopback.processes import LoopbackFederation

OPTIONS = (
    "--min-volunteers", "2", "--min-reports", "2", "--allow-weak",
    "--local-steps", "3", "--batch-size", "4", "--seq-len", "32", "--rank", "8",
)  # fmt: skip
STEP_S = 200.0


@contextmanager
def community(
    root: Path, model: Path, rounds: int, personal: str, ranks: dict[str, int]
) -> Iterator[LoopbackFederation]:
    """A community whose rounds have ended; its port is still open."""
    with LoopbackFederation(root, environment={"OMP_NUM_THREADS": "1"}) as made:
        made.init("own", model, (*OPTIONS, "--max-rounds", str(rounds), "--personal", personal))
        made.up()
        made.wait("the port", lambda: bool(made.hosted()), STEP_S)
        link = made.invite(len(ranks))
        for name, rank in ranks.items():
            data = topic_rows(root / f"{name}.jsonl", name)
            made.join(name, link, data, model, "--rank", str(rank))
        made.wait("the rounds", lambda: len(made.records()) > rounds, STEP_S)
        yield made


@pytest.mark.timeout(600)
def test_volunteers_of_two_ranks_commit_rounds_and_keep_an_adapter_each(
    tmp_path: Path, tiny_model: Path
) -> None:
    ranks = {"ada": 8, "ben": 4}
    with community(tmp_path, tiny_model, 2, "adapter", ranks) as made:
        first, *rounds = made.records()
        assert first.personal == {}
        for record in rounds:
            assert record.committed, record.reason
            assert record.ranks == ranks
            assert set(record.contributors) == set(record.personal) == set(ranks)
            assert record.personal_loss is not None
            assert all(record.personal[name] != record.losses[name] for name in ranks)


@pytest.mark.timeout(600)
def test_a_community_whose_bs_stay_at_home_is_called_what_it_is(
    tmp_path: Path, tiny_model: Path
) -> None:
    ranks = {"ada": 8, "ben": 8}
    with community(tmp_path, tiny_model, 1, "local-B", ranks) as made:
        _, record = made.records()
        assert record.committed, record.reason
        assert set(record.personal) == set(ranks)
        where = ("--dir", str(made.folder))
        versions = json.loads(made.call("adapter", "list", "--json", *where))
        assert [version["method"] for version in versions] == ["local-B", "local-B"]
        made.call("adapter", "export", str(tmp_path / "exported"), *where)
        previewed = json.loads(made.call("sent", "--preview", "--json", home="ada"))
        (entry,) = previewed if isinstance(previewed, list) else [previewed]
        assert entry["tensors"]
        assert all("lora_A" in tensor["name"] for tensor in entry["tensors"])
