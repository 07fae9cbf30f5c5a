"""`nomoat volunteers evidence`: what is held against a volunteer, recomputed, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import AsJson, Same, opened, print_json

if TYPE_CHECKING:
    from nomoat.server.conduct.cases import Cases, KeptEvidence

Out = Annotated[
    Path | None, typer.Option(help="Write the evidence here, a file each: for whoever asks for it.")
]


def evidence(
    ctx: typer.Context, name: str, out: Out = None, folder: Same = None, as_json: AsJson = False
) -> None:
    """Show all that is held against a volunteer, recomputed from what it signed, and its appeal."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.server.conduct.cases import Cases
    from nomoat.server.conduct.ledger import ConductLedger
    from nomoat.server.conduct.sizes import false_accusations

    registrar = opened(folder or ctx.obj).registrar
    known = registrar.database.applicant(name)
    if known is None:
        raise UsageError(f"no volunteer is called {name}; see: nomoat volunteers list")
    cases = Cases(registrar.database)
    strikes = [str(s) for s in ConductLedger(registrar).counting() if s.volunteer == name]
    if out is not None:
        _write(out, cases.of(name))
    found = {
        "name": name,
        "standing": known.standing.value,
        "reason": known.reason,
        "strikes": strikes,
        "sizes": [round(size, 3) for size in cases.sizes_of(name)],
        "false_accusations": false_accusations(),
        **_case(cases, name),
    }
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(_lines(found)))


def _case(cases: Cases, name: str) -> dict[str, Any]:
    appeal = cases.appeal_of(name)
    return {
        "evidence": [_shown(each) for each in cases.of(name)],
        "appeal": None if appeal is None else {"text": appeal.text, "at": appeal.at},
    }


def _shown(each: KeptEvidence) -> dict[str, Any]:
    """Return what a piece of evidence shows when it is computed again."""
    from nomoat.aggregation.errors import RemoteProtocolError

    shown: dict[str, Any] = {
        "digest": each.digest.hex(),
        "round": each.round,
        "bytes": len(each.data),
    }
    try:
        return {**shown, "holds": True, "says": each.read().says}
    except RemoteProtocolError as problem:
        return {**shown, "holds": False, "says": problem.reason}


def _lines(found: dict[str, Any]) -> Iterator[str]:
    from datetime import UTC, datetime

    because = f": {found['reason']}" if found["reason"] else ""
    yield f"{found['name']} is {found['standing']}{because}"
    yield from (f"noted: {strike}" for strike in found["strikes"])
    for each in found["evidence"]:
        verdict = "recomputed here" if each["holds"] else "DOES NOT HOLD"
        yield f"evidence {each['digest']} (round {each['round']}, {each['bytes']} bytes): "
        yield f"  {verdict}: {each['says']}"
    if found["sizes"]:
        listed = ", ".join(f"{size:.2f}" for size in found["sizes"])
        yield f"sizes of its last audited updates, over the bound: {listed}"
        odds = found["false_accusations"]
        yield f"(an honest volunteer at the bound is named with probability {odds:.0e} a round)"
    if not found["evidence"]:
        yield "no evidence that anybody can recompute"
    if (appeal := found["appeal"]) is not None:
        at = datetime.fromtimestamp(appeal["at"], UTC)
        yield f"appeal of {at:%Y-%m-%d %H:%M} UTC: {appeal['text']}"


def _write(folder: Path, pieces: list[KeptEvidence]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for each in pieces:
        (folder / f"{each.digest.hex()}.evidence").write_bytes(each.data)
