"""The coordinator's one port, as an ASGI application: Flower's fleet protocol and our own paths.

A request passes through layers, each of which knows more about its sender than the one before, and
refuses what it can without costing more than that:

    RequestLimits    a stranger: known path, declared size, requests a second. Nothing is read yet.
    BodyBuffer       a slow peer: large bodies wait on disk, a few at a time are worked on.
    Flower           signatures: a fleet call's node key must be one that `Directory` knows.
    NodeRules        a member, perhaps a hostile one: no reply in another's name, no flood.
    routes, router   what is left: enrolment, downloads, and Flower's own handling of messages.

Flower reads a body before it authenticates its sender, so the first two stand outside of it.
Whatever is not its fleet protocol or a path of ours does not exist: no SuperLink is started, and
the control and runtime interfaces of a stock one, which anybody could call, are answered with 404.

    services = PortServices(state, registrar, registry, info, max_objects)
    app = make_app(services)
    with serving(app, ListenOptions("0.0.0.0", 8443, certificate, key)) as port:
        ...                                # volunteers join, pull tasks, push updates
    app.carried                            # bytes that went through it
"""

from __future__ import annotations

import time

from starlette.middleware import Middleware

from nomoat.server.fleet import flower_server
from nomoat.server.port.body_buffer import BodyBuffer
from nomoat.server.port.node_rules import NodeRules
from nomoat.server.port.request_limits import FLEET, RequestLimits, Scope
from nomoat.server.port.routes import add_routes
from nomoat.server.port.services import PortServices


def make_app(services: PortServices) -> RequestLimits:
    """The whole application; it counts the bytes it carries."""
    app = flower_server.fleet_app(services.state, Middleware(NodeRules, services=services))
    add_routes(app, services)
    buffered = BodyBuffer(app, services.state.folder)

    def member(scope: Scope) -> str | None:
        key = flower_server.claimed_key(dict(scope["headers"]))
        return None if key is None else services.state.name_of(key)

    return RequestLimits(buffered, services.caps, time.monotonic, member)


assert flower_server.FLEET == FLEET
