"""HTTP headers beyond Flower's protocol, and how far two clocks may differ on it."""

from __future__ import annotations

WAIT = "x-nomoat-wait"
"""Seconds a volunteer lets its pull be held open until there is a message for it."""

HOLD = "x-nomoat-hold"
"""In the answer to a pull: for how many seconds pulls may be held here, and count as heartbeats."""

HAVE = "x-nomoat-have"
"""Ids of the last messages that arrived, with commas: any other is offered again."""

SOFTWARE = "x-nomoat-software"
"""What a volunteer runs, where its owner shows it: nomoat's version and the machine's system."""

CARRY = "x-nomoat-carry"
"""Present in a pull whose sender reads small objects beside their tree (carried.py)."""

PAUSED = "x-nomoat-paused"
"""Present while a volunteer's owner lets nothing be trained: it is here, but not to be asked."""

SPEAKS = "x-nomoat-protocol"
"""The versions of the protocol that a volunteer speaks, in every request: "1", "1-2"."""

FOLLOWS_KEYS = "x-nomoat-keys"
"""Present in every request of a volunteer that can follow a community whose key has changed."""

MAX_SKEW_S = 240
"""Flower refuses requests that were signed more than 300 s away."""
