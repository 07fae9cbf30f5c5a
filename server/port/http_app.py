"""The coordinator's one port, as an ASGI application: Flower's fleet protocol and our own paths.

A request passes through layers, each of which knows more about its sender than the one before, and
refuses what it can without costing more than that:

    RequestLimits    a stranger: known path, declared size, requests a second, and for a fleet call
                     a node key that `Directory` knows and its signature. Nothing is read yet.
    SpokenRule       somebody who speaks no version of the protocol in common;
    KeyRule          a member of a release that follows no change of the community's key.
    BodyBuffer       a slow peer: large bodies wait on disk, a few at a time are worked on.
    FleetCalls       a member, perhaps a hostile one: no call in another's name, no flood. Made by
                     Flower's own handlers, with small objects that travel along (CarriedObjects).
    routes           what is left: enrolment, downloads.

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
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from nomoat.aggregation.protocol.community.spoken import SpokenVersions
from nomoat.server.fleet import flower_server
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.node_signature import PROVEN_KEY, claimed_key, signed_just_now
from nomoat.server.port.body_buffer import BodyBuffer
from nomoat.server.port.fleet_calls import FleetCalls
from nomoat.server.port.request_limits import FLEET, App, Receive, RequestLimits, Scope, Send
from nomoat.server.port.routes import add_routes, proven_name
from nomoat.server.port.services import PortServices
from nomoat.server.port.spoken_rule import SpokenRule
from nomoat.server.succession.key_rule import KeyRule


@dataclass(frozen=True)
class Inside:
    """All that stands behind a port's limits: `app` is every path, `calls` those of the fleet.

    refusal: the answer to a request whose sender speaks no version, or follows no key, of ours.
    """

    app: App
    calls: FleetCalls
    refusal: Callable[[Scope], Response | None]


def inside(services: PortServices, wrapped: Callable[[App], App] = lambda app: app) -> Inside:
    """Requests meet this once they were let through. wrapped: what stands before the paths."""
    calls = FleetCalls(services)
    ours = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_routes(ours, services)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        fleet = scope["type"] == "http" and scope["path"].startswith(FLEET)
        await (calls if fleet else ours)(scope, receive, send)

    def note(scope: Scope, spoken: SpokenVersions) -> None:
        if PROVEN_KEY in scope:
            services.state.note_spoken(scope[PROVEN_KEY], spoken.header)

    follows = KeyRule(wrapped(either), services.registrar)
    speaks = SpokenRule(follows, note)

    def refusal(scope: Scope) -> Response | None:
        return speaks.refusal(scope) or follows.refusal(scope)

    return Inside(speaks, calls, refusal)


def make_app(services: PortServices) -> RequestLimits:
    """The whole application; it counts the bytes it carries."""
    state = services.state
    behind = inside(services, lambda app: BodyBuffer(app, state.folder))

    async def member(scope: Scope) -> str | None:
        if scope["path"].startswith(FLEET):
            return await run_in_threadpool(proven_member, scope, state)
        return await run_in_threadpool(proven_name, Request(scope), services)

    return RequestLimits(behind.app, services.caps, time.monotonic, member)


def proven_member(scope: Scope, state: FleetState) -> str | None:
    """The member whose node key has signed the time in a request's head, None if there is none.

    The key is noted in the scope, for FleetCalls.
    """
    headers = dict(scope["headers"])
    key = claimed_key(headers)
    name = None if key is None else state.name_of(key)
    if key is None or name is None or not signed_just_now(headers, key):
        return None
    scope[PROVEN_KEY] = key
    return name


assert flower_server.FLEET == FLEET
