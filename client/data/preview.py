"""A data file's preview as a person reads it: one example, counts, what was dropped and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from nomoat.lora.data.files.listing import names

if TYPE_CHECKING:
    from nomoat.lora.data.preview import Preview

TRAINED = "bold green"


def as_json(preview: Preview) -> dict[str, Any]:
    """The preview as a JSON-able object."""
    shown = asdict(preview)
    first = {"origin": shown.pop("first_origin"), "tokens": [list(t) for t in preview.first]}
    return {**shown, "first": first}


def render(preview: Preview) -> Group:
    """The preview for a terminal; trained tokens stand in ⟦ ⟧ and in green."""
    why = f" ({preview.seq_len_reason})" if preview.seq_len_reason else ""
    lines = [
        Text(
            f"{preview.rows} rows ({preview.layout}) give {preview.examples} examples of at most "
            f"{preview.seq_len} tokens{why}: {preview.tokens} tokens, {preview.trained_tokens} of "
            f"them trained; {preview.truncated} cut to fit. Template: {preview.template}."
        ),
        *_files(preview),
    ]
    if preview.first:
        lines += [
            Text(),
            Text(f"{preview.first_origin}, ⟦trained⟧ tokens marked:", "dim"),
            marked(preview.first),
        ]
    lines.append(Text())
    lines += [
        Text(f"dropped {d.count}: {d.reason} (first: {d.first})", "yellow") for d in preview.dropped
    ]
    lines += [
        Text(f"ignored in {d.count}: {d.reason} (first: {d.first})", "yellow")
        for d in preview.ignored
    ]
    if not preview.dropped:
        lines.append(Text("nothing dropped"))
    return Group(*lines, *(Text(f"warning: {words}", "bold red") for words in preview.warnings))


def _files(preview: Preview) -> list[Text]:
    """Name the files that were read, where there are several, and those that were not."""
    lines = []
    if len(preview.files) > 1:
        read = ", ".join(f"{file.shown} ({file.rows})" for file in preview.files[:8])
        more = f" and {len(preview.files) - 8} more" if len(preview.files) > 8 else ""
        lines.append(Text(f"read: {read}{more}", "dim"))
    return [*lines, *(Text(f"not read: {line}", "yellow") for line in names(preview.unread))]


def marked(tokens: tuple[tuple[str, bool], ...]) -> Text:
    """Runs of trained tokens in brackets, which a terminal without colours shows, too."""
    text, inside = Text(), False
    for token, trained in tokens:
        if trained != inside:
            text.append("⟦" if trained else "⟧", TRAINED)
            inside = trained
        text.append(token, TRAINED if trained else "")
    return text.append("⟧" if inside else "", TRAINED)
