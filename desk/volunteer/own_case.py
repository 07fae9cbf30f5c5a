"""A hold or ban of this volunteer, as its own page shows it: the evidence recomputed, an appeal."""

from __future__ import annotations

from collections.abc import Mapping

from nomoat.aggregation.errors import UsageError
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership import standing
from nomoat.client.volunteer.kit import Kit


def order(home: Home, folder: CommunityFolder, form: Mapping[str, str]) -> str:
    """Do what a form says; a sentence that says what came of it. NomoatError if it cannot be."""
    kit = Kit.of(home, folder, folder.load())
    if form.get("order") == "recompute":
        found = standing.recomputed(folder, kit.coordinator, kit.settings.name)
        said = f"Round {found.round}: {found.says}"
        return f"{said}. This machine computed it again from messages that it signed itself."
    if form.get("order") == "appeal":
        standing.appeal(folder, kit.coordinator, form.get("text", ""))
        return f"{folder.name()} has your appeal; this page says when you may take part again."
    raise UsageError("there is no such order")
