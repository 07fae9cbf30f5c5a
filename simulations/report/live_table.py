"""The terminal's view of a running federation: a growing table, or one line per round."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress

SHOWN_ROUNDS = 20


class Silence:
    """Shows nothing."""

    def progress(self, progress: RoundProgress) -> None:
        """Nothing."""

    def ended(self, record: RoundRecord) -> None:
        """Nothing."""


class LiveTable:
    """Round, loss, who took part, time left; redrawn in place on a terminal, lines elsewhere.

    head: lines above it, shown once the run has begun: one that cannot begin ends in its own.
    """

    def __init__(
        self,
        console: Console,
        rounds: int,
        base_loss: float | None = None,
        head: tuple[str, ...] = (),
    ) -> None:
        self._console = console
        self._head = head
        self._rounds = rounds
        self._base_loss = base_loss  # known already when a run is resumed
        self._records: list[RoundRecord] = []
        self._now = RoundProgress(0, "starting", 0, 0)
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def progress(self, progress: RoundProgress) -> None:
        """Note where the present round stands."""
        self._begin()
        self._now = progress

    def ended(self, record: RoundRecord) -> None:
        """Add a round."""
        self._begin()
        self._records.append(record)
        if record.round == 0:
            self._base_loss = record.loss
        if not self._console.is_terminal:
            number, loss, *rest = _cells(record, self._base_loss)
            cells = " · ".join((f"held-out loss {loss}", *filter(None, rest)))
            self._console.print(f"round {number} · {cells}", markup=False, highlight=False)

    def _begin(self) -> None:
        for line in self._head:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._head = ()

    def _table(self) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in ("round", "held-out loss", "against base", "took part", ""):
            table.add_column(name, justify="left" if name == "" else "right")
        for record in self._records[-SHOWN_ROUNDS:]:
            table.add_row(*_cells(record, self._base_loss))
        if not self._records or self._records[-1].round < self._rounds:
            now = self._now
            doing = f"{now.phase} {now.answered}/{now.asked}" if now.asked else now.phase
            table.add_row(str(now.round), "", "", "", f"[dim]{doing}{self._left()}[/dim]")
        return table

    def _left(self) -> str:
        done = len(self._records) - 1
        if done < 1:
            return ""
        each = (time.monotonic() - self._began) / (done + 1)
        return f", about {max(1, round(each * (self._rounds - self._records[-1].round)))} s left"


def _cells(record: RoundRecord, base_loss: float | None) -> tuple[str, str, str, str, str]:
    loss = "–" if record.loss is None else f"{record.loss:.4f}"
    change = ""
    if record.round and record.loss is not None and base_loss:
        change = f"{record.loss / base_loss - 1:+.1%}"
    part = f"{len(record.contributors)}/{len(record.cohort)}" if record.round else ""
    note = "" if record.committed else f"abandoned: {record.reason}"
    if record.round == 0:
        note = "before training"
    elif record.committed and record.personal_loss is not None:
        note = f"with own parts {record.personal_loss:.4f}"
    return str(record.round), loss, change, part, note
