"""The record of a round, and the journal it is written to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from nomoat.aggregation.protocol.messages import SPENT, STALE
from nomoat.server.rounds.federation import FederationCheckpoint

BROUGHT_BACK = "brought back by members after a restore"  # the reason of such a round
ERASED = "erased-"  # how a word begins that takes an erased name's place


def nobodys_name() -> str:
    """Return a new word that takes an erased volunteer's name's place."""
    return f"{ERASED}{os.urandom(4).hex()}"


def same_people(recorded: Sequence[str], signed: Sequence[str]) -> bool:
    """Tell whether a record names those whom a version names, but for words in erased names' place.

    Versions are signed and keep the names.
    """
    pairs = zip(recorded, signed, strict=False)
    same = all(here == there or here.startswith(ERASED) for here, there in pairs)
    return len(recorded) == len(signed) and same


@dataclass(frozen=True)
class RoundRecord:
    """One line of metrics.jsonl. Losses are nats per trained token.

    Bytes, of all volunteers together: in a simulation payload; of a coordinator's port all that
    HTTP carried since the round before ended, polling and downloads of adapters included.
    """

    round: int
    committed: bool
    reason: str
    cohort: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    loss: float | None = None  # macro average over volunteers' held-out rows
    losses: dict[str, float] = field(default_factory=dict)
    personal: dict[str, float] = field(default_factory=dict)  # with what each keeps to itself
    personal_loss: float | None = None  # macro average of what each has (`with_own`)
    ranks: dict[str, int] = field(default_factory=dict)  # modules each volunteer trained
    learning_rate: float | None = None
    evaluation: float | None = None  # on the community's own evaluation split
    train_loss: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # per phase
    session: str = ""  # how the aggregation was protected
    adapter: str = ""  # digest of the adapter that stands after this round, hex
    train_seconds: dict[str, float] = field(default_factory=dict)  # as each volunteer measured it
    held: dict[str, str] = field(default_factory=dict)  # left out from now on, and why
    suspects: dict[str, float] = field(default_factory=dict)  # probability to spoil sums, if over ½
    norm_bound: float | None = None  # on the L2 norm of an update
    noise: float = 0.0  # z in its masked sums
    excluded: int = 0  # from the sum by its audit, with evidence
    misfits: tuple[str, ...] = ()  # whose loss of the candidate nothing bears out
    sums: int = 1  # over disjoint parts of the cohort, at most
    left_out: dict[str, int] = field(default_factory=dict)  # in a bad sum of several → which
    reusable: bool = False  # its number may be announced again: nobody was asked for an update

    @property
    def bad_sums(self) -> list[frozenset[str]]:
        """Return who was in each sum that was left out of a round that had several."""
        places = sorted(set(self.left_out.values()))
        return [frozenset(n for n, at in self.left_out.items() if at == one) for one in places]

    @property
    def summed(self) -> bool:
        """True if updates were summed, whatever became of the sum."""
        return bool(self.contributors or self.left_out)

    @property
    def spent(self) -> bool:
        """True if most of those who were asked had this round, or a later one, behind them."""
        behind = sum(why in (STALE, SPENT) for why in self.dropped.values())
        return not self.committed and 2 * behind > len(self.cohort)

    def as_json(self) -> dict[str, Any]:
        """A JSON-able object."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> RoundRecord:
        """Read what as_json gave; TypeError if it is of another revision."""
        lists = {name: tuple(row[name]) for name in ("cohort", "contributors")}
        lists["misfits"] = tuple(row.get("misfits", ()))  # not there in records of before
        return cls(**{**row, **lists})


class Overruled(Exception):
    """A round may not be committed, since meanwhile its parent was given up; says why."""


class Journal(Protocol):
    """Ended rounds, written down; what it has accepted survives a kill."""

    def last(self) -> FederationCheckpoint | None:
        """Return where to go on from, if anything was written."""

    def history(self) -> Iterable[RoundRecord]:
        """Return the records of all ended rounds, in order."""

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write one ended round, all of it or nothing; Overruled if it may not be committed."""


def with_own(losses: Mapping[str, float], personal: Mapping[str, float]) -> dict[str, float]:
    """Everyone's loss with what it has: a part of its own, or as yet the community's alone."""
    return {name: personal.get(name, loss) for name, loss in losses.items()}


def personal_loss(losses: Mapping[str, float], personal: Mapping[str, float]) -> float | None:
    """Macro average over the volunteers that `losses` averages over; None if nobody has a part."""
    return macro(with_own(losses, personal)) if personal else None


def macro(losses: Mapping[str, float]) -> float | None:
    """Unweighted mean over volunteers; None of nobody."""
    return sum(losses[name] for name in sorted(losses)) / len(losses) if losses else None
