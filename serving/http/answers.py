"""An engine's answers inside an event loop: its thread delivers, the loop waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from nomoat.lora.inference.requests import (
    AnswerEvent,
    Deliver,
    Ended,
    Engine,
    Failed,
    Question,
    Running,
)
from nomoat.serving.http.errors import ApiError


@dataclass
class Answers:
    """Answers to several questions, event by event as they come."""

    running: list[Running] = field(default_factory=list)
    queue: asyncio.Queue[tuple[int, AnswerEvent]] = field(default_factory=asyncio.Queue)
    ends: dict[int, Ended] = field(default_factory=dict)

    @classmethod
    def begin(cls, engine: Engine, questions: Sequence[Question]) -> Answers:
        """Ask all of them; what the engine raises for one cancels the others."""
        found, loop = cls(), asyncio.get_running_loop()

        def deliver_as(index: int) -> Deliver:
            def deliver(event: AnswerEvent) -> None:
                loop.call_soon_threadsafe(found.queue.put_nowait, (index, event))

            return deliver

        try:
            for index, question in enumerate(questions):
                found.running.append(engine.submit(question, deliver_as(index)))
        except BaseException:
            found.cancel()
            raise
        return found

    async def events(self) -> AsyncIterator[tuple[int, AnswerEvent]]:
        """(number of the question, event) until all have ended; ApiError if one failed."""
        while len(self.ends) < len(self.running):
            index, event = await self.queue.get()
            if isinstance(event, Failed):
                self.cancel()
                raise ApiError(500, event.message)
            if isinstance(event, Ended):
                self.ends[index] = event
            yield index, event

    def cancel(self) -> None:
        """Nobody waits any more."""
        for running in self.running:
            running.cancel()
