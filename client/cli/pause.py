"""`nomoat pause`, `resume` and `finish`: orders to a volunteer, running or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.client.cli import options

if TYPE_CHECKING:
    from nomoat.client.home import CommunityFolder
    from nomoat.client.machine.readings import Orders

app = typer.Typer(add_completion=False)


@app.command()
def pause(
    for_: Annotated[
        str | None, typer.Option("--for", help="90m, 2h, 1d; until resume if left out.")
    ] = None,
    community: options.Which = None,
) -> None:
    """Stop training and give the memory back until `resume`, or for a while; nothing is lost."""
    import time
    from datetime import UTC

    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders

    span = None if for_ is None else owner_orders.span_s(for_)
    for folder in Home.opened().chosen(community):
        before = owner_orders.read(folder.root)
        _order(folder, owner_orders.pause(before, time.time(), span, UTC))


@app.command()
def resume(community: options.Which = None) -> None:
    """Take part again after a pause."""
    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders

    for folder in Home.opened().chosen(community):
        _order(folder, owner_orders.resume(owner_orders.read(folder.root)))


@app.command()
def finish(community: options.Which = None) -> None:
    """Finish what is being done, then stop."""
    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders
    from nomoat.client.volunteer.status import running

    for folder in Home.opened().chosen(community):
        if running(folder):
            _order(folder, owner_orders.finish(owner_orders.read(folder.root)))
        else:
            typer.echo(f"{folder.name()}: not running")


def _order(folder: CommunityFolder, orders: Orders) -> None:
    from datetime import datetime

    from nomoat.client.cli.status_page import render_orders
    from nomoat.client.machine import owner_orders

    owner_orders.write(folder.root, orders)
    typer.echo(f"{folder.name()}: {render_orders(orders, datetime.now().astimezone())}")
