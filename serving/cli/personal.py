"""`nomoat adapter personal`: an adapter of one's own on top of the community's."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.serving.cli.options import CommunityOption

if TYPE_CHECKING:
    from nomoat.client.training.private_adapter import Gain
    from nomoat.serving.variants.private import PrivateOutcome

app = typer.Typer(add_completion=False)


@app.command()
def personal(
    community: CommunityOption = None,
    steps: Annotated[
        int, typer.Option(min=0, max=100_000, help="Steps to train on; 0 measures only.")
    ] = 32,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of a new one.")] = 8,
    rate: Annotated[
        float | None, typer.Option("--lr", min=0.0, help="Learning rate (default: what suits).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Carry your own adapter on to the newest version: measured there, trained on, never sent."""
    import os
    from dataclasses import asdict

    from nomoat.client.home import Home
    from nomoat.serving.variants.private import PrivateWish, go_on

    home = Home.opened()
    wish = PrivateWish(steps, rank, rate)
    outcome = go_on(home, home.choose(community), wish, os.urandom(32), _say)
    if as_json:
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        return
    _show(outcome)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _show(outcome: PrivateOutcome) -> None:
    for gain in outcome.earlier[-3:]:
        if outcome.carried is None or gain.version != outcome.carried.version:
            typer.echo(f"before: {_line(gain)}")
    if outcome.carried is not None:
        typer.echo(f"carried on: {_line(outcome.carried)}")
    if outcome.trained is None:
        return
    typer.echo(f"trained: {_line(outcome.trained)}")
    if outcome.kept:
        _say("kept on this machine; next: nomoat chat --compare")
    else:
        _say("no better on your held-out rows: nothing was changed")


def _line(gain: Gain) -> str:
    return (
        f"version {gain.version}: {gain.community:.4f}, with your own adapter {gain.own:.4f} "
        f"(gain {gain.gain:+.4f} nats per token, {gain.steps} steps)"
    )
