"""Views to HTML: one environment, in which every value is text until a template says otherwise."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE: Final = Path(__file__).parent
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def render(template: str, **values: Any) -> str:
    """Return a template of this folder, filled; a value that is missing is an error."""
    return _environment().get_template(f"{template}.html.j2").render(**values)


def shown(value: object) -> object:
    """Return text with what would disturb its surroundings made visible; other values as they are.

    A name may hold control characters, or marks that turn the direction of what follows.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return "" if value is None else value
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co")
        else f"\\u{ord(char):04x}"
        for char in value
    )  # fmt: skip


def size(count: float) -> str:
    """Bytes for a person: powers of 1024."""
    value = float(count)
    for unit in _SIZES:
        if abs(value) < 1024 or unit == _SIZES[-1]:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError  # the last unit has ended the loop


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def when(at_s: float) -> Markup:
    """A moment in local time, with its whole date in the element for whoever wants it."""
    at = datetime.fromtimestamp(at_s).astimezone()
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S}"
    )


def day(at_s: float) -> Markup:
    """The day of a moment in UTC, for a page that is read anywhere."""
    at = datetime.fromtimestamp(at_s, UTC)
    return Markup('<time datetime="{0}">{0}</time>').format(f"{at:%Y-%m-%d}")


def number(value: float | None, digits: int = 4) -> str:
    """A measured number, or a dash where nothing was measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def plainly(value: object) -> object:
    """A value of an event: numbers with a fraction rounded, all else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=shown,
    )
    environment.filters.update(
        size=size, span=span, when=when, day=day, number=number, plainly=plainly
    )
    return environment
