"""`nomoat invite`: invitations are issued, listed and revoked."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import AsJson, Here, opened, print_json, print_table, say

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.invitation import Claims
    from nomoat.server.community.invites import IssuedInvitation
    from nomoat.server.community.opened import OpenCommunity


def invite(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    folder: Here = Path(),
    uses: Annotated[int, typer.Option(min=1, help="How many may join with it.")] = 1,
    expires: Annotated[str, typer.Option(help="90m, 36h, 7d, 2w.")] = "7d",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT, if not the one of community.toml.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the QR code to this file.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the invitations there are; issue none.")
    ] = False,
    revoke: Annotated[
        str | None, typer.Option(metavar="ID", help="Make an invitation worthless; issue none.")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="The link alone, no QR code.")] = False,
) -> None:
    """Print an invitation: a nomoat:// link (stdout) and its QR code."""
    community = opened(folder)
    if revoke is not None:
        issued = community.registrar.revoke(revoke)
        say(f"invitation {issued.identifier.hex()} is revoked; nobody can join with it any more")
    if list_:
        _list(community.registrar.database.invitations(), as_json)
    if list_ or revoke is not None:
        return
    claims = _claims(community, address, uses, expires)
    _show(community, claims, svg, as_json, quiet)


def _claims(community: OpenCommunity, address: str | None, uses: int, expires: str) -> Claims:
    """A new invitation's claims; UsageError for an address the certificate does not name."""
    import os

    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.invitation import Claims
    from nomoat.server.community import certificates
    from nomoat.server.community.invites import parse_duration

    folder = community.folder
    where = certificates.canonical(address or community.settings.server.address)
    host, _ = certificates.split_address(where)
    if host not in certificates.hosts_of(folder.server_certificate.read_bytes()):
        raise UsageError(
            f"the server certificate does not name {host}; set server.address in "
            f"{folder.settings} and start nomoat up once"
        )
    return Claims(
        where,
        certificates.fingerprint(folder.authority_certificate.read_bytes()),
        community.registrar.key.public,
        os.urandom(16),
        uses,
        int(time.time()) + parse_duration(expires),
    )


def _show(
    community: OpenCommunity, claims: Claims, svg: Path | None, as_json: bool, quiet: bool
) -> None:
    """Issue an invitation and print it."""
    from nomoat.server.community.certificates import only_here
    from nomoat.server.community.invites import qr_svg, qr_text

    invitation = community.registrar.invite(claims)
    identifier = claims.identifier.hex()
    if svg is not None:
        svg.write_bytes(qr_svg(invitation))
    if as_json:
        shown = {"link": invitation.link(), "uses": claims.uses, "expires": claims.expires}
        print_json({**shown, "address": claims.address, "id": identifier})
        return
    typer.echo(invitation.link())
    if not quiet:
        sys.stderr.write(qr_text(invitation))
        base = _base_of(community.settings.base.model)
        say(f"send this: nomoat join '{invitation.link()}' --data THEIR_FILE --base {base}")
        if only_here(claims.address):
            say(f"{claims.address} is found on this machine only; for others: --address HOST:PORT")
        say(f"to take it back: nomoat invite {community.folder.root} --revoke {identifier[:8]}")


def _base_of(model: str) -> str:
    """Name the base as those who are invited may: what everybody can fetch, else their folder."""
    from nomoat.lora.model.files import BUILT_IN

    return model if "/" in model or model in BUILT_IN else f"THEIR_FOLDER_OF_{_one_word(model)}"


def _one_word(name: str) -> str:
    """A name with a dash for all that a shell would read otherwise."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


def _list(invitations: list[IssuedInvitation], as_json: bool) -> None:
    now = int(time.time())
    if as_json:
        print_json([_row(issued, now) for issued in invitations])
        return
    rows = []
    for issued in invitations:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(issued.expires))
        used = f"{issued.used} of {issued.uses}"
        rows.append((issued.identifier.hex(), issued.state(now), used, until))
    print_table(("id", "state", "used", "expires"), rows)


def _row(issued: IssuedInvitation, now: int) -> dict[str, Any]:
    return {
        "id": issued.identifier.hex(),
        "state": issued.state(now),
        "uses": issued.uses,
        "used": issued.used,
        "expires": issued.expires,
    }
