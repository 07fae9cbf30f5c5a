"""Small objects that travel with pulls and pushes (flower/carried.py), at the port."""

from __future__ import annotations

from fastapi import Request

from nomoat.flower.carried import carried, carry, small
from nomoat.flower.headers import CARRY
from nomoat.server.fleet import flower_server
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.port.request_limits import App, Message, Receive, Scope, Send


class CarriedObjects:
    """ASGI middleware inside NodeRules: what it takes is a member's own call, within its limits.

    Flower's handler has answered when it comes to work, and the answer is not yet bytes.
    """

    def __init__(self, app: App, state: FleetState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on; complete its answer."""
        request = Request(scope) if scope["type"] == "http" else None
        call = None if request is None else flower_server.call_in(request)
        if request is None or call is None:
            await self._app(scope, receive, send)
            return

        async def completing(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                answer = flower_server.answer_in(request)
                if flower_server.asks_for_messages(call) and CARRY in request.headers:
                    self._give(answer)
                elif flower_server.sends_messages(call):
                    self._take(call, answer)
            await send(message)

        await self._app(scope, receive, completing)

    def _give(self, answer: flower_server.Pulled) -> None:
        """Put the small objects of a pulled message into the answer, as far as they are here."""
        ids = flower_server.objects_of(answer)
        carry(answer, small((each, self._state.in_memory(each)) for each in ids))

    def _take(self, call: flower_server.Push, answer: flower_server.Pushed) -> None:
        """Store what came with a push, and name it in the answer instead of asking for it."""
        run, session = flower_server.run_of(call), answer.session_id
        assert run is not None  # NodeRules: a push is about a run
        came = small(carried(call).items())
        stored = [
            each
            for each in answer.objects_to_push
            if each in came and self._state.store_object(run, session, each, came[each])
        ]
        if stored:
            left = [each for each in answer.objects_to_push if each not in stored]
            del answer.objects_to_push[:]
            answer.objects_to_push.extend(left)
            carry(answer, dict.fromkeys(stored, b""))
