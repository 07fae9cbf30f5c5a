"""Flower's server side, as far as a coordinator uses it: the one file to look at when flwr changes.

flwr does not promise to keep any of this (docs/adr/0002-flower-embedded.md); tests/end_to_end/line
pins what is relied on. The classes are bases of ours (link_state.py, object_files.py); the
functions say what a call of its fleet protocol is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from fastapi import Request
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_PATIENCE,
    NOOP_FLWR_AID,
    Status,
    SubStatus,
)
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import (
    NOOP_FEDERATION_ID,
    NodeStatus,
    TaskType,
)
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore, ObjectEntry
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.run import RunStatus
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.router import router as fleet_router
from flwr.superlink.servicer.fleet import fleet_handlers as handlers
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nomoat.flower.objects import ids_in
from nomoat.server.fleet.node_signature import claimed_key, signed_just_now

__all__ = [
    "InMemoryLinkState",
    "InMemoryObjectStore",
    "NoObjectInStoreError",
    "NoOpFederationManager",
    "NodeStatus",
    "ObjectEntry",
    "ObjectTree",
]

FLEET = fleet_router.prefix + "/"
MEDIA_TYPE = PROTOBUF_MEDIA_TYPE
BEAT_S = HEARTBEAT_DEFAULT_INTERVAL
ADJUSTED_S = 5.0  # by so much a clock may go back unnoticed
_Handler: TypeAlias = Callable[[Any, InMemoryLinkState], Any]
CALLS: dict[str, tuple[Any, _Handler]] = {
    FLEET + path: (kind, handler)
    for path, kind, handler in (
        ("activate-node", ActivateNodeRequest, handlers.activate_node),
        ("deactivate-node", DeactivateNodeRequest, handlers.deactivate_node),
        ("send-node-heartbeat", SendNodeHeartbeatRequest, handlers.send_node_heartbeat),
        (
            "pull-messages",
            PullMessagesRequest,
            lambda call, state: handlers.pull_messages(call, state, state.object_store),
        ),
        ("push-messages", PushMessagesRequest, handlers.push_messages),
        ("pull-object", PullObjectRequest, handlers.pull_object),
        ("push-object", PushObjectRequest, handlers.push_object),
        (
            "confirm-message-received",
            ConfirmMessageReceivedRequest,
            lambda call, state: handlers.confirm_message_received(call, state, state.object_store),
        ),
    )
}
OWNER = NOOP_FLWR_AID
RUNNING = RunStatus(Status.RUNNING, "", "")
RunStatuses = dict[int, RunStatus]
Pulled: TypeAlias = PullMessagesResponse
Push: TypeAlias = PushMessagesRequest
Pushed: TypeAlias = PushMessagesResponse


class CallRefused(Exception):
    """A call that is not made; status and JSON of the answer."""

    def __init__(self, status: int, reason: str, content: object = None) -> None:
        super().__init__(reason)
        self.status = status
        self.content = content or {"error": reason}


def parsed(path: str, request: Request, body: bytes) -> Any:
    """Return the fleet call in a request; CallRefused if there is none."""
    if path not in CALLS:
        raise CallRefused(404, "no such path")
    kind, _ = CALLS[path]
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise CallRefused(415, "fleet calls are protobuf")
    try:
        return kind.FromString(body)
    except DecodeError:
        raise CallRefused(400, "not the protobuf that this path takes") from None


def make(path: str, call: Any, state: InMemoryLinkState) -> Any:
    """Have Flower's handler make a call; its answer, or CallRefused as Flower words it."""
    try:
        return CALLS[path][1](call, state)
    except FlowerError as problem:
        known = API_ERROR_MAP[ApiErrorCode(problem.code)]
        content = problem.to_json(known.public_message)
        raise CallRefused(known.http_status_code, problem.message, content) from None


def objects_of(answer: PullMessagesResponse) -> list[str]:
    """The ids of the objects of a pulled message, each once; none of an empty answer."""
    return list(
        dict.fromkeys(each for tree in answer.message_object_trees for each in ids_in(tree))
    )


def signed_by_its_key(request: Request) -> bool:
    """True if a request is signed by the key it names, whoever has that."""
    headers = dict(request.scope["headers"])
    key = claimed_key(headers)
    return key is not None and signed_just_now(headers, key)


def is_of(call: Any, key: bytes, state: InMemoryLinkState) -> bool:
    """True if a call speaks of the node that holds `key`, and of no other."""
    if isinstance(call, ActivateNodeRequest):
        return bool(call.public_key == key)
    return state.get_node_id_by_public_key(key) == node_of(call)


def node_of(call: Any) -> int:
    """The node that says it makes a call, 0 where a call names none."""
    return int(call.node.node_id if hasattr(call, "node") else getattr(call, "node_id", 0))


def run_of(call: Any) -> int | None:
    """The run a call is about, None if it is about none."""
    if isinstance(call, PushMessagesRequest):
        return call.messages_list[0].metadata.run_id if call.messages_list else 0
    return call.run_id if hasattr(call, "run_id") else None


def asks_for_messages(call: Any) -> bool:
    """True of a pull."""
    return isinstance(call, PullMessagesRequest)


def sends_messages(call: Any) -> bool:
    """True of a push."""
    return isinstance(call, PushMessagesRequest)


def confirmed_by(call: Any) -> str | None:
    """The message that a call says has arrived, None if it says nothing of the kind."""
    confirms = isinstance(call, ConfirmMessageReceivedRequest)
    return str(call.message_object_id) if confirms else None


def may_push(call: PushMessagesRequest, max_objects: int) -> bool:
    """True if a push holds one whole reply, of the node that sends it, of at most `max_objects`."""
    if len(call.messages_list) != 1 or len(call.message_object_trees) != 1:
        return False
    metadata, tree = call.messages_list[0].metadata, call.message_object_trees[0]
    if metadata.src_node_id != call.node.node_id or metadata.message_id != tree.object_id:
        return False
    if not all(count < max_objects for count, _ in enumerate(ids_in(tree))):
        return False
    try:
        message_from_proto(call.messages_list[0])  # as the call itself will
    except Exception:  # noqa: BLE001 - hostile numbers and texts; flwr raises whatever it likes
        return False
    times = (metadata.ttl, metadata.created_at)
    return "\0" not in metadata.message_id and all(map(math.isfinite, times))


def here_no_longer_than_said(nodes: Iterable[NodeInfo], now: float) -> None:
    """Take as gone whoever would be here for longer than it can have said. now: unix time.

    That is how it looks to a clock that was set back: until it had come that far again everybody
    would be asked, and be held for no answer, though no call of theirs is in time.
    """
    for node in nodes:
        if node.online_until > now + HEARTBEAT_PATIENCE * node.heartbeat_interval + ADJUSTED_S:
            node.online_until = now


def delivered_now() -> str:
    """The time of a delivery, as Flower notes it in a message."""
    return str(now().isoformat())


def begin_run(state: InMemoryLinkState) -> tuple[int, int]:
    """Make a run and start its task: (run id, task id)."""
    run_id = state.create_run(
        "nomoat/rounds", "1", "", {}, NOOP_FEDERATION_ID, None, OWNER, TaskType.SERVER_APP
    )
    task_id: Any = state.get_run_info(run_ids=[run_id])[0].primary_task_id
    if not (state.claim_task(task_id) and state.activate_task(task_id)):
        raise RuntimeError("Flower did not start the run")
    return run_id, task_id


def end_run(state: InMemoryLinkState, task_id: int) -> None:
    """Finish a run's task."""
    state.finish_task(task_id, SubStatus.COMPLETED, "")
