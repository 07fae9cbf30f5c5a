"""The coordinator's one port, as an ASGI application: Flower's fleet protocol and our own paths.

A request passes through layers, each of which knows more about its sender than the one before, and
refuses what it can without costing more than that:

    RequestLimits    a stranger: known path, declared size, requests a second, and for a fleet call
                     a node key that `Directory` knows and its signature. Nothing is read yet.
    BodyBuffer       a slow peer: large bodies wait on disk, a few at a time are worked on.
    Flower           what a call is: protobuf into a message.
    NodeRules        a member, perhaps a hostile one: no call in another's name, no flood.
    CarriedObjects   small objects that came with a push, or go with a pull.
    routes, router   what is left: enrolment, downloads, and Flower's own handling of messages.

Flower would read and parse a body before it authenticates its sender, so that is done outside.
Whatever is not its fleet protocol or a path of ours does not exist: no SuperLink is started, and
the control and runtime interfaces of a stock one, which anybody could call, are answered with 404.

    services = PortServices(state, registrar, versions, info, max_objects)
    app = make_app(services)
    with serving(app, ListenOptions("0.0.0.0", 8443, certificate, key)) as port:
        ...                                # volunteers join, pull tasks, push updates
    app.carried                            # bytes that went through it
"""

from __future__ import annotations

import time

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request

from nomoat.server.fleet import flower_server
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.port.body_buffer import BodyBuffer
from nomoat.server.port.carried_objects import CarriedObjects
from nomoat.server.port.node_rules import PROVEN_KEY, NodeRules
from nomoat.server.port.request_limits import FLEET, RequestLimits, Scope
from nomoat.server.port.routes import add_routes, proven_name
from nomoat.server.port.services import PortServices


def make_app(services: PortServices) -> RequestLimits:
    """The whole application; it counts the bytes it carries."""
    state = services.state
    rules = Middleware(NodeRules, services=services)
    app = flower_server.fleet_app(state, rules, Middleware(CarriedObjects, state=state))
    add_routes(app, services)
    buffered = BodyBuffer(app, state.folder)

    async def member(scope: Scope) -> str | None:
        if scope["path"].startswith(FLEET):
            return await run_in_threadpool(proven_member, scope, state)
        return await run_in_threadpool(proven_name, Request(scope), services)

    return RequestLimits(buffered, services.caps, time.monotonic, member)


def proven_member(scope: Scope, state: FleetState) -> str | None:
    """The member whose node key has signed the time in a request's head, None if there is none.

    The key is noted in the scope, for NodeRules.
    """
    headers = dict(scope["headers"])
    key = flower_server.claimed_key(headers)
    name = None if key is None else state.name_of(key)
    if key is None or name is None or not flower_server.signed_just_now(headers, key):
        return None
    scope[PROVEN_KEY] = key
    return name


assert flower_server.FLEET == FLEET
