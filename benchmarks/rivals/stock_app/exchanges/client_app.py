"""A volunteer that trains nothing: it answers at once, with arrays of the right size.

In the rival's favour: a real one would import torch and load its model anew for every message,
since a stock SuperNode runs each in a process of its own.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train("local")
def train(message: Message, context: Context) -> Message:
    """Take the adapter, keep an update, say ready."""
    [adapter] = arrays(message)
    context.state["update"] = ArrayRecord([adapter + np.float32(0.01)])
    return Message(RecordDict({"ready": MetricRecord({"tokens": 100})}), reply_to=message)


@app.query("report")
def report(message: Message, context: Context) -> Message:
    """Hand over the update."""
    update = context.state["update"]
    return Message(RecordDict({"update": update}), reply_to=message)


@app.evaluate("heldout")
def evaluate(message: Message, context: Context) -> Message:
    """Take the candidate, answer with a loss."""
    [adapter] = arrays(message)
    loss = float(adapter.mean())
    return Message(RecordDict({"loss": MetricRecord({"loss": loss})}), reply_to=message)


def arrays(message: Message) -> list[np.ndarray]:
    """The arrays a message brings."""
    record = message.content["adapter"]
    assert isinstance(record, ArrayRecord)
    return record.to_numpy_ndarrays()
