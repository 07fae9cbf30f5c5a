"""A Grid whose replies are polled for: what the grids of a simulation and of a fleet share."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

__all__ = ["NodeInfo", "PollingGrid", "Run"]  # the types a Grid speaks of, too

POLL_S = 0.01


class PollingGrid(Grid):
    """Sends and waits by `push_messages` and `pull_messages`, which a subclass gives."""

    @abstractmethod
    def get_nodes(self) -> Iterable[NodeInfo]:
        """Nodes that are online, with their owners' names."""

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes that are online."""
        return [node.node_id for node in self.get_nodes()]

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message, in Flower's deprecated way."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send and wait for all replies, or for `timeout` seconds."""
        waiting = set(self.push_messages(messages)) - {""}
        started, received = time.monotonic(), []
        while waiting and (timeout is None or time.monotonic() - started < timeout):
            for reply in self.pull_messages(waiting):
                received.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
            if waiting:
                self.pause()
        return received

    def pause(self) -> None:
        """Wait a little before replies are asked for again."""
        time.sleep(POLL_S)
