"""Rows read one by one: what is asked of a worker, and what it answers; free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowReading:
    """A row under one adapter. nats: − log-probability of all its trained tokens together."""

    nats: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats per trained token."""
        return self.nats / self.tokens
