"""report.html: one self-contained page that shows what a run found, and to whom it helped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment

from nomoat.simulations.report import plots
from nomoat.simulations.report.results import Result

NO_DP = (
    "No differential privacy: secure aggregation hides individual uploads, not what the adapter "
    "memorised of its training rows."
)
PLAIN = (
    "No secure aggregation (it was switched off): the coordinator saw each volunteer's update. No "
    "differential privacy: nothing bounds what the adapter memorised of its training rows."
)


def page(result: Result, config: str) -> str:
    """The page as HTML: no script, no network, every text escaped."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["bytes"] = human_bytes
    template = files("nomoat.simulations.report").joinpath("report.html.j2").read_text("utf-8")
    summary = result.summary()
    return environment.from_string(template).render(
        summary=summary,
        sentence=result.sentence(),
        tiles=_tiles(result, summary),
        curve=plots.svg(plots.loss_curve(result)),
        gains=plots.svg(plots.gains(result)),
        records=result.records,
        samples=result.samples,
        privacy=privacy(result),
        own=_own(result),
        rows=result.row_lines(),
        config=config,
    )


def privacy(result: Result) -> str:
    """Say what protected the updates of this run, and what did not."""
    if not result.scenario.secure:
        return PLAIN
    sessions = sorted({r["session"] for r in result.records[1:] if r["session"]})
    return f"Secure aggregation ({', '.join(sessions) or 'no session'}). {NO_DP}"


OWN = {
    "local-B": (
        "A is averaged over the community, B stays with each volunteer. The community's adapter "
        "alone is the base model; with its own B it is the volunteer's."
    ),
    "adapter": (
        "Each volunteer trains an adapter of its own on top of the community's; it never leaves "
        "the volunteer's machine."
    ),
}


def _own(result: Result) -> dict[str, Any] | None:
    """Return what the section about personal parts shows; None if nobody keeps any."""
    personal = result.scenario.personal
    if personal == "none":
        return None
    first, last = result.records[0], result.records[-1]
    own = result.personal
    names = sorted(last["losses"].keys() | own.keys())
    losses = (first["losses"], last["losses"], own)
    rows = [
        (name, last["ranks"].get(name, "–"), *(_number(found.get(name)) for found in losses))
        for name in names
    ]
    return {"words": OWN[personal], "rows": rows}


def human_bytes(count: float) -> str:
    """1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def card(result: Result) -> str:
    """README.md of the adapter: what it is, how it was made and what was measured."""
    scenario, summary = result.scenario, result.summary()
    lines = [
        "# A community adapter",
        "",
        f"{summary['volunteers']} simulated volunteers trained this LoRA adapter together in "
        f"{summary['rounds']} rounds ({summary['rounds_committed']} committed); their updates were "
        f"aggregated with `{scenario.chosen.method().name}`.",
        "",
        "| adapter | held-out loss, nats per token |",
        "|---|---|",
        f"| base model | {_number(result.base_loss)} |",
        f"| **community** | **{_number(result.community_loss)}** |",
    ]
    if result.scenario.personal != "none":
        lines.append(
            f"| community with each volunteer's own part | {_number(result.personal_loss)} |"
        )
    if result.baselines is not None:
        lines += [
            f"| alone (mean) | {_number(result.baselines.solo_mean)} |",
            f"| all data in one place | {_number(result.baselines.pooled)} |",
        ]
    lines += [
        "",
        "Loss on the reply's tokens, macro-averaged over the volunteers' held-out rows.",
        "",
        f"Rank {scenario.rank}, α {scenario.alpha:g}; {scenario.local_steps} steps of "
        f"{scenario.batch_size} rows per round and volunteer at learning rate "
        f"{scenario.chosen.train_settings().learning_rate:g}; seed {scenario.seed}; data "
        f"`{scenario.data}`.",
        "",
        *(line for note in result.notes for line in (note, "")),
        privacy(result),
        "",
    ]
    return "\n".join(lines)


def _tiles(result: Result, summary: dict[str, Any]) -> list[tuple[str, str, bool]]:
    tiles = [
        ("base model", _number(result.base_loss), False),
        ("together", _number(result.community_loss), True),
    ]
    if result.scenario.personal != "none":
        tiles.append(("with own part (mean)", _number(result.personal_loss), False))
    if result.baselines is not None:
        tiles += [
            ("alone (mean)", _number(result.baselines.solo_mean), False),
            ("all data in one place", _number(result.baselines.pooled), False),
        ]
    up = human_bytes(summary["bytes_up_per_volunteer_per_round"])
    return [
        *tiles,
        ("sent per volunteer and round", up, False),
        ("seconds", f"{result.seconds:.0f}", False),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
