"""Rounds of three exchanges: train, report, evaluate. Writes when each round began and ended."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; the file `out` tells how long each took, and each of its exchanges."""
    config = context.run_config
    rounds, volunteers = int(config["rounds"]), int(config["volunteers"])
    adapter = np.zeros(int(config["values"]), np.float32)
    while len(nodes := sorted(grid.get_node_ids())) < volunteers:
        time.sleep(0.1)
    seconds = []
    for number in range(1, rounds + 1):
        marks = [time.monotonic()]
        ask(grid, nodes, "train.local", number, {"adapter": ArrayRecord([adapter])})
        marks.append(time.monotonic())
        asked = {"please": ConfigRecord({"round": number})}
        replies = ask(grid, nodes, "query.report", number, asked)
        adapter = np.mean([update_of(reply) for reply in replies], axis=0)
        marks.append(time.monotonic())
        ask(grid, nodes, "evaluate.heldout", number, {"adapter": ArrayRecord([adapter])})
        marks.append(time.monotonic())
        seconds.append([after - before for before, after in itertools.pairwise(marks)])
    Path(str(config["out"])).write_text(
        json.dumps({"seconds": seconds, "value": float(adapter[0]), "ended": time.monotonic()})
    )


def update_of(reply: Message) -> np.ndarray:
    """The array a reply brings."""
    record = reply.content["update"]
    assert isinstance(record, ArrayRecord)
    return record.to_numpy_ndarrays()[0]


def ask(
    grid: Grid, nodes: list[int], kind: str, number: int, content: dict[str, Any]
) -> list[Message]:
    """One exchange with every node; fails if one does not answer."""
    messages = [Message(RecordDict(content), node, kind, group_id=str(number)) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=300))
    if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
        raise RuntimeError(f"{kind}: {[str(r.error) for r in replies if r.has_error()]}")
    return replies
