"""Text of a peer as it may be shown: it draws on no terminal, no log and no page.

`one_line` is the one place that decides: errors (errors.py), logs and pages put text through it.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` on one line, with a blank for every character that is not printed as itself.

    Control characters, line ends, marks that turn the direction of writing, halves of surrogates.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def lines(text: str) -> str:
    """The same for text of several lines, which stay."""
    return "\n".join(map(one_line, text.split("\n")))
