"""Small objects that travel with pulls and pushes (flower/carried.py), at the port."""

from __future__ import annotations

from nomoat.flower.carried import carried, carry, small
from nomoat.server.fleet import flower_server
from nomoat.server.fleet.link_state import FleetState


class CarriedObjects:
    """Completes the answers to a member's own calls, which are within its limits (FleetCalls)."""

    def __init__(self, state: FleetState) -> None:
        self._state = state

    def give(self, answer: flower_server.Pulled) -> None:
        """Put the small objects of a pulled message into the answer, as far as they are here."""
        ids = flower_server.objects_of(answer)
        carry(answer, small((each, self._state.in_memory(each)) for each in ids))

    def take(self, call: flower_server.Push, answer: flower_server.Pushed) -> None:
        """Store what came with a push, and name it in the answer instead of asking for it."""
        run, session = flower_server.run_of(call), answer.session_id
        assert run is not None  # FleetCalls: a push is about a run
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
