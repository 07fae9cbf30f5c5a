"""The cells: method × split of the data × ranks × seed, and the scenario of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import METHODS
from nomoat.aggregation.methods.base import SummedMethod
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.scenario import Scenario

EQUAL, MIXED = "equal", "mixed"
RANKS = {EQUAL: None, MIXED: "4,8,16"}
COMMUNITY_RANK = {EQUAL: 8, MIXED: 16}
SCALE = 2.0  # α/r, the same for both, so that one learning rate suits both
POOLED = "pooled"  # the row of the reference, beside those of the methods
SPLITS = ("topics", "iid", "dirichlet:0.1")


@dataclass(frozen=True)
class Setting:
    """All that the cells of one results file share.

    An even number of rounds, so that methods that alternate factors train each equally often; a
    multiple of three volunteers, so that as many have each of the mixed ranks.
    """

    model: str = POCKET
    data: str = POCKET
    by: str | None = None
    volunteers: int = 6
    rounds: int = 8
    local_steps: int = 6
    batch_size: int = 8
    seq_len: int = 128
    lr: float = 5e-3
    eval_rows: int = 24

    @property
    def splits(self) -> tuple[str, ...]:
        """The ways its rows are shared out."""
        return SPLITS if self.by is None else (f"by {self.by}",)

    @property
    def methods(self) -> tuple[str, ...]:
        """All for the pocket federation, those that work under masks for other data."""
        if self.data == POCKET:
            return tuple(METHODS)
        return tuple(n for n, method in METHODS.items() if isinstance(method, SummedMethod))

    def as_json(self) -> dict[str, Any]:
        """For the rows of the results file."""
        return asdict(self)


@dataclass(frozen=True, order=True)
class Cell:
    """One run; method may be POOLED."""

    seed: int
    split: str
    ranks: str
    method: str

    @property
    def place(self) -> str:
        """split/ranks, as --cells takes it."""
        return f"{self.split}/{self.ranks}"

    def __str__(self) -> str:
        return f"{self.place} {self.method}, seed {self.seed}"


def cells(
    setting: Setting, methods: Sequence[str], wanted: Sequence[str], seeds: Sequence[int]
) -> Iterator[Cell]:
    """Every cell that is asked for, the reference last in each place.

    wanted: splits, ranks or split/ranks; empty for all. UsageError for a name that none has.
    """
    known = {name for split in setting.splits for name in (split, *(f"{split}/{r}" for r in RANKS))}
    known |= set(RANKS)
    _refuse(set(wanted) - known, "cell", known)
    _refuse(set(methods) - set(setting.methods), "method", set(setting.methods))
    for seed in seeds:
        for split in setting.splits:
            for ranks in RANKS:
                names = {split, ranks, f"{split}/{ranks}"}
                if not wanted or names & set(wanted):
                    for method in (*methods, POOLED):
                        yield Cell(seed, split, ranks, method)


def scenario(setting: Setting, cell: Cell) -> Scenario:
    """The federation of a cell; UsageError if its method cannot do it.

    Unmasked, since the plaintext methods know nothing else; all methods alike.
    """
    rank = COMMUNITY_RANK[cell.ranks]
    return Scenario(
        model=setting.model,
        data=setting.data,
        by="topic" if cell.split == "topics" else setting.by,
        volunteers=setting.volunteers,
        partition=cell.split if cell.split in SPLITS[1:] else "iid",
        rounds=setting.rounds,
        local_steps=setting.local_steps,
        batch_size=setting.batch_size,
        seq_len=setting.seq_len,
        learning_rate=setting.lr,
        rank=rank,
        ranks=RANKS[cell.ranks],
        alpha=SCALE * rank,
        method="fedavg" if cell.method == POOLED else cell.method,
        secure=False,
        seed=cell.seed,
        eval_rows=setting.eval_rows,
    )


def _refuse(unknown: set[str], what: str, known: set[str]) -> None:
    if unknown:
        raise UsageError(f"no {what} {sorted(unknown)[0]!r}: choose of {', '.join(sorted(known))}")
