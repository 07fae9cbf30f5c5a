"""What a data file will teach, as a person reads it: one example, counts, what was dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

if TYPE_CHECKING:
    from nomoat.lora.data.encoding import Preview

TRAINED = "bold green"


def as_json(preview: Preview) -> dict[str, Any]:
    """The preview as a JSON-able object."""
    return {
        "layout": preview.layout,
        "template": preview.template,
        "rows": preview.rows,
        "examples": preview.examples,
        "tokens": preview.tokens,
        "trained_tokens": preview.trained_tokens,
        "truncated": preview.truncated,
        "first": {"origin": preview.first_origin, "tokens": [list(t) for t in preview.first]},
        "dropped": [
            {"reason": d.reason, "count": d.count, "first": d.first} for d in preview.dropped
        ],
    }


def render(preview: Preview) -> Group:
    """The preview for a terminal; trained tokens stand in ⟦ ⟧ and in green."""
    lines = [
        Text(
            f"{preview.rows} rows ({preview.layout}) give {preview.examples} examples: "
            f"{preview.tokens} tokens, {preview.trained_tokens} of them trained; "
            f"{preview.truncated} cut to fit. Template: {preview.template}."
        ),
        Text(),
        Text(f"{preview.first_origin}, ⟦trained⟧ tokens marked:", "dim"),
        marked(preview.first),
        Text(),
    ]
    lines += [
        Text(f"dropped {d.count}: {d.reason} (first: {d.first})", "yellow") for d in preview.dropped
    ]
    if not preview.dropped:
        lines.append(Text("nothing dropped"))
    return Group(*lines)


def marked(tokens: tuple[tuple[str, bool], ...]) -> Text:
    """Runs of trained tokens in brackets, which a terminal without colours shows, too."""
    text, inside = Text(), False
    for token, trained in tokens:
        if trained != inside:
            text.append("⟦" if trained else "⟧", TRAINED)
            inside = trained
        text.append(token, TRAINED if trained else "")
    return text.append("⟧" if inside else "", TRAINED)
