"""The volunteer's line to its coordinator: Flower's fleet protocol with an installed ClientApp.

Never asks for a FAB: the only code that runs is what is installed. Polling, heartbeats and work
each have their thread, so hours of training keep the line alive; whatever breaks the line is
waited out with growing pauses, and a coordinator that was restarted is found again.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import httpx

from nomoat.aggregation.errors import Unreachable
from nomoat.client.connection.answering import Answering, Listener
from nomoat.client.connection.flower_client import (
    BEAT_S,
    SIGN_OFF_S,
    TIMEOUT_S,
    ConnectionSettings,
    FlowerClient,
    Node,
    RunEnded,
    UnknownNode,
)
from nomoat.client.connection.message_worker import MessageWorker
from nomoat.client.connection.threads import started
from nomoat.flower.process import quick_turns

log = logging.getLogger(__name__)

LOOK_S = 0.5


def serve(
    connection: ConnectionSettings, answering: Answering, stop: threading.Event, listener: Listener
) -> None:
    """Answer whatever the coordinator sends, until `stop` is set.

    Raises Refused if the coordinator does not admit this node key; a coordinator that does not
    answer is waited for, however long.
    """
    backoff = connection.backoff()
    with FlowerClient(connection) as client, quick_turns():
        worker = MessageWorker(client, answering, stop, listener)
        while not stop.is_set():
            try:
                node = client.activate()
            except (Unreachable, UnknownNode) as problem:
                pause = next(backoff)
                listener.lost(str(problem), pause)
                stop.wait(pause)
                continue
            backoff = connection.backoff()
            worker.serve_as(node)
            listener.connected(node.node_id)
            over = threading.Event()
            beat = started(partial(_beat, client, node, over), "heartbeat")
            try:
                _poll(client, node, worker, stop, listener)
            finally:
                over.set()
                if stop.is_set():
                    client.deactivate(node)
                beat.join(SIGN_OFF_S if stop.is_set() else TIMEOUT_S)


def _poll(
    client: FlowerClient,
    node: Node,
    worker: MessageWorker,
    stop: threading.Event,
    listener: Listener,
) -> None:
    """Hand messages to `worker` until `stop` is set or the node must be activated again.

    A poll may be held open by the coordinator, so it runs beside the wait for `stop`.
    """
    ended = threading.Event()

    def poll() -> None:
        backoff = client.connection.backoff()
        while not (stop.is_set() or ended.is_set()):
            asked_at = time.monotonic()
            try:
                incoming = client.receive(node)
            except UnknownNode as problem:
                listener.lost(str(problem), 0.0)
                break
            except (Unreachable, RunEnded, httpx.HTTPStatusError) as problem:
                pause = next(backoff)
                listener.lost(str(problem), pause)
                ended.wait(pause)
                continue
            if backoff.used:
                backoff = client.connection.backoff()
                listener.connected(node.node_id)
            if incoming is not None:
                worker.put(incoming)
            elif time.monotonic() - asked_at < 1.0:  # it was not held open
                ended.wait(client.connection.chance.uniform(*client.connection.poll_s))
        ended.set()

    started(poll, "poll")
    while not (ended.wait(0.1) or stop.is_set()):
        pass
    ended.set()


def _beat(client: FlowerClient, node: Node, over: threading.Event) -> None:
    """Heartbeats until `over`, one at once when the owner pauses or resumes.

    Where pulls count as heartbeats, that is all that is left to say. Failures are the poll's to
    notice.
    """
    connection = client.connection
    told = connection.paused()
    while not over.is_set():
        until = time.monotonic() + connection.chance.uniform(0.8, 1.0) * BEAT_S
        while time.monotonic() < until and connection.paused() == told:
            if over.wait(LOOK_S):
                return
        if client.hold.offered and connection.paused() == told:
            continue  # the poll has said so
        told = connection.paused()  # before it is said: what changes meanwhile is said again
        try:
            client.beat(node)
        except (Unreachable, UnknownNode, RunEnded, httpx.HTTPStatusError) as problem:
            log.debug("heartbeat: %s", problem)
