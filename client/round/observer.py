"""Events of a round, told as they happen: to the status of this machine and to its log."""

from __future__ import annotations

from nomoat.client.round.work import UpdateSummary, Work


class RoundObserver:
    """Told of a round's events; here nothing comes of them. Subclasses override what they want."""

    def begun(self, work: Work) -> None:
        """Work that a round asks for is begun."""

    def trained(self) -> None:
        """An update was trained and is stored."""

    def measured(self, loss: float, own_loss: float | None) -> None:
        """The held-out rows were measured, mean nats per token; own_loss: with what is kept."""

    def declined(self, complaint: str) -> None:
        """A task was declined; `complaint` says why, for the owner."""

    def failed(self, work: Work, problem: str) -> None:
        """Work could not be done."""

    def refused(self, problem: str) -> None:
        """The coordinator lied, or asks for what this machine's policy forbids."""

    def uploading(self, upload: UpdateSummary) -> None:
        """The update was handed to the exchange that asks for it."""

    def reported(self) -> None:
        """The answer that is about to leave carries the update, in the open or under masks."""
