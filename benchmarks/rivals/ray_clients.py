"""The federation's ClientApp for Flower's Ray simulation, as its documentation suggests.

A module of its own, so that Ray's actors import it instead of unpickling it: the model is loaded
once per actor, not once per message.
"""

from __future__ import annotations

from functools import cache

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from rivals.hands import Values, hands
from rivals.plan import Plan

app = ClientApp()


@cache
def _plan() -> Plan:
    return Plan.read()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train this partition's rows and send the adapter back; everyone counts the same."""
    plan, values, place = _plan(), _values(message), _place(context)
    config = message.content["config"]
    assert isinstance(config, ConfigRecord)
    number = config["server-round"]
    assert isinstance(number, int)
    seed = bytes.fromhex(plan.seeds[number - 1][place])
    trained, _ = hands(plan).train(values, plan.volunteers[place], seed)
    weight = MetricRecord({"weight": 1})
    return Message(
        RecordDict({"arrays": ArrayRecord([trained]), "metrics": weight}), reply_to=message
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the adapter on this partition's held-out rows."""
    plan = _plan()
    loss = hands(plan).evaluate(_values(message), plan.volunteers[_place(context)])
    metrics = MetricRecord({"weight": 1, "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _values(message: Message) -> Values:
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    found: Values = arrays.to_numpy_ndarrays()[0]
    return found.copy()  # Flower's is read-only


def _place(context: Context) -> int:
    return int(context.node_config["partition-id"])
