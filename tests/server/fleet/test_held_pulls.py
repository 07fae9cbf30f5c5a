"""A pull is held open without a thread, and goes on when there is a reason to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from nomoat.server.fleet.held_pulls import AwaitedPull, HeldPulls

LONG_S = 30.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def no_news(_node: int) -> bool:
    return False


def begun(pulls: HeldPulls, node: int, seconds: float = LONG_S) -> asyncio.Task[bool]:
    pull = AwaitedPull(asyncio.get_running_loop(), asyncio.Event())
    pulls.begin(node, pull)
    return asyncio.create_task(pulls.wait(node, pull, seconds))


def test_a_message_from_another_thread_releases_the_pulls_of_its_nodes_and_no_other() -> None:
    async def work() -> None:
        pulls = HeldPulls(no_news)
        one, two, other = (begun(pulls, node) for node in (1, 2, 3))
        threading.Thread(target=pulls.ring, args=([1, 2, 99],)).start()
        assert await one
        assert await two
        assert not other.done()
        assert len(pulls) == 1
        pulls.close()
        assert await other

    run(work())


def test_a_pull_ends_when_its_time_is_over() -> None:
    async def work() -> None:
        pulls = HeldPulls(no_news)
        assert await begun(pulls, 1, 0.01)
        assert len(pulls) == 0

    run(work())


def test_a_node_that_has_news_is_not_held() -> None:
    async def work() -> None:
        assert await begun(HeldPulls(lambda node: node == 7), 7)

    run(work())


def test_the_end_of_the_port_releases_everybody_and_holds_nobody_any_more() -> None:
    async def work() -> None:
        pulls = HeldPulls(no_news)
        held = [begun(pulls, node) for node in range(1000)]
        await asyncio.sleep(0)
        assert len(pulls) == 1000
        pulls.close()
        assert all(await asyncio.gather(*held))
        assert await begun(pulls, 1)

    run(work())


def test_ten_thousand_pulls_of_one_node_are_one() -> None:
    async def work() -> None:
        pulls = HeldPulls(no_news)
        tasks = [begun(pulls, 1) for _ in range(10_000)]
        assert len(pulls) == 1
        ended = await asyncio.gather(*tasks[:-1])
        assert not any(ended)  # a newer one took their place
        pulls.ring([1])
        assert await tasks[-1]

    run(work())


def test_a_thousand_are_woken_in_one_turn_of_their_loop() -> None:
    async def work() -> None:
        pulls = HeldPulls(no_news)
        held = [begun(pulls, node) for node in range(1000)]
        await asyncio.sleep(0)
        loop, calls = asyncio.get_running_loop(), []
        plain = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *one, **more: (  # type: ignore[method-assign]
            calls.append(one),
            plain(*one, **more),
        )[1]
        pulls.ring(range(1000))
        assert len(calls) == 1
        assert all(await asyncio.gather(*held))

    run(work())
