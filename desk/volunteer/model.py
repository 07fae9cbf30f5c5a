"""The adapter version this machine has, and what it gained on the rows kept here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nomoat.client.home import CommunityFolder
from nomoat.client.membership import version_history
from nomoat.client.membership.version_history import PastVersion
from nomoat.client.training.base_loss import BaseLossFile
from nomoat.client.volunteer.status import read_status
from nomoat.desk.pages.charts import ChartLine, ChartPoint, line_chart

PAST_SHOWN = 50


@dataclass(frozen=True)
class ModelView:
    """The newest verified version. losses in nats per trained token; None: not measured.

    here: its adapter's file is on this machine. mine, own: on the rows kept here, and with this
    volunteer's own part.
    """

    base: str
    base_path: str
    number: int | None
    at: float | None
    round: int | None
    contributors: int
    method: str
    loss: float | None
    parent_loss: float | None
    evaluation: float | None
    here: bool
    digest: str
    mine: float | None
    own: float | None
    base_mine: float | None  # of the base alone, on the same rows
    past: tuple[PastVersion, ...] = ()  # newest first

    @property
    def gain(self) -> float | None:
        """The nats per token that the adapter last measured here takes off the base's loss."""
        return None if self.mine is None or self.base_mine is None else self.base_mine - self.mine


def loss_chart(past: Sequence[PastVersion]) -> Markup:
    """Everybody's loss and that of the rows kept here; empty with fewer than two versions."""
    if len(past) < 2:
        return Markup("")
    curves = (
        ("on your rows", [(each.number, each.mine) for each in past]),
        ("on everyone's", [(each.number, each.loss) for each in past]),
    )
    lines = [
        ChartLine(name, tuple(ChartPoint(x, y) for x, y in sorted(curve) if y is not None), kind)
        for kind, (name, curve) in enumerate(curves)
    ]
    return line_chart("Loss by version, nats per token", lines)


def model_view(folder: CommunityFolder) -> ModelView:
    """Look at the newest version record this machine has verified."""
    info, settings = folder.info(), folder.load()
    status, record = read_status(folder), folder.version()
    mine, own = (None, None) if status is None else (status.loss, status.own_loss)
    base_mine = BaseLossFile.within(folder.root).loss()
    if record is None:
        blank = (None, None, None, 0, "", None, None, None, False, "")
        return ModelView(info.base_model, settings.base, *blank, mine, own, base_mine)
    version = record.version
    return ModelView(
        info.base_model,
        settings.base,
        version.number,
        version.at,
        version.round,
        len(version.contributors),
        version.method,
        version.loss,
        version.parent_loss,
        version.evaluation,
        folder.adapter(record).exists(),
        version.adapter.hex(),
        mine,
        own,
        base_mine,
        tuple(reversed(version_history.read(folder.root)))[:PAST_SHOWN],
    )
