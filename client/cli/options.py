"""Options that several commands of a volunteer have, and those of `nomoat join`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Which = Annotated[
    str | None, typer.Option("--community", help="Name or id, if several were joined.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background.")]

Link = Annotated[
    str, typer.Argument(help="The invitation: nomoat://join/…; - reads it from stdin.")
]
Data = Annotated[Path, typer.Option(help="Your data: a file or folder; it stays here.")]
Base = Annotated[
    str | None,
    typer.Option(help="Where the base model is here: a folder, a hub id, pocket or smollm2."),
]
Name = Annotated[
    str | None, typer.Option("--as", help="Your name in the community (default: yours here).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")]
Heldout = Annotated[float, typer.Option(help="Share of rows kept for measuring.")]
HeldoutData = Annotated[
    Path | None, typer.Option(help="Rows to measure with, instead of a share of yours.")
]
Rank = Annotated[str | None, typer.Option(help="Modules trained here at most, or auto: what fits.")]
BaseBits = Annotated[
    Literal["auto", "4", "8", "16"],
    typer.Option(help="Bits of the frozen base; auto: what fits, or is faster."),
]
KnownPeers = Annotated[
    int,
    typer.Option(min=0, help="Take part only among so many that you have known for 30 days."),
]
MinParticipants = Annotated[
    int,
    typer.Option(min=0, help="Be summed among so many at least; 0: what the community says."),
]
AgreeUpTo = Annotated[
    int,
    typer.Option(min=0, max=1000, help="Percent more work than the sheet says, agreed to before."),
]
AcceptWeak = Annotated[
    bool,
    typer.Option("--accept-weak", help="With --yes: also where few are summed, or nothing masked."),
]
AcceptAudit = Annotated[
    bool,
    typer.Option("--accept-audit", help="With --yes: also where sizes of updates are audited."),
]
AllowDropping = Annotated[
    bool, typer.Option("--allow-dropping", help="Join if over 20 % of the rows cannot be used.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Accept the sheet without being asked.")]
EnrolOnly = Annotated[bool, typer.Option("--enrol-only", help="Join, train later.")]
NoWeb = Annotated[
    bool, typer.Option("--no-web", help="No page in a browser, which opens where there is one.")
]
