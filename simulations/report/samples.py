"""Three held-out rows, as the base and as the community write them."""

from __future__ import annotations

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.workers.jobs import SampleJob
from nomoat.simulations.preparation import PreparedFederation
from nomoat.simulations.report.results import Sample

SAMPLES = 3
NEW_TOKENS = 48


def take(ground: PreparedFederation, adapter: Adapter) -> tuple[Sample, ...]:
    """Greedy samples for the first held-out row of volunteers spread over the roster."""
    members = ground.population.members
    places = sorted({round(i * (len(members) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})
    rows = [(members[i].name, *_cut(ground.population.first_held_out[i])) for i in places]
    asked = [
        (
            ground.pool.submit(SampleJob((prompt,), adapter.spec, None, NEW_TOKENS, plain)),
            ground.pool.submit(
                SampleJob((prompt,), adapter.spec, adapter.vector, NEW_TOKENS, plain)
            ),
        )
        for _, prompt, _, plain in rows
    ]
    return tuple(
        Sample(name, prompt, reference, base.result()[0], community.result()[0])
        for (name, prompt, reference, _), (base, community) in zip(rows, asked, strict=True)
    )


def _cut(row: Conversation) -> tuple[str, str, bool]:
    """(prompt, what followed, whether it is plain text to be continued)."""
    if row.turns[-1].role == "text":
        words = row.turns[-1].text.split(" ")
        middle = max(1, min(len(words) // 2, 30))
        return " ".join(words[:middle]), " ".join(words[middle:]), True
    asked = [turn.text for turn in row.turns[:-1] if turn.role == "user"]
    return (asked[-1] if asked else ""), row.turns[-1].text, False
