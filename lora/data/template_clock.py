"""The date that chat templates are told: one for every run, on every machine, on every day.

Some templates write today's date into the prompt (`strftime_now`). With the machine's clock, two
volunteers either side of midnight would train on different texts, and a run could not be repeated
tomorrow. So a template asks a macro put in front of it, which knows one instant.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Final

TODAY: Final = datetime.datetime(2024, 7, 26, 12, 0, tzinfo=datetime.UTC)
CALL: Final = "strftime_now"
DIRECTIVES: Final = "aAbBcCdDeFgGhHIjmMnprRStTuUVwWxXyYzZ"
UNPADDED: Final = {"%-d": "26", "%-m": "7", "%-H": "12", "%-I": "12", "%-M": "0", "%-S": "0"}
# Jinja's filter and function that give another text each time.
CHANCE: Final = re.compile(r"""\|\s*random\b|["']random["']|\blipsum\b""")

FILES: Final = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")


def with_fixed_clock(template: str) -> str:
    """Return the template, asking for TODAY where it asks for the time; unchanged if it never does.

    The macro stands on a line of its own, which Jinja swallows (trim_blocks): what the template
    writes stays the same, spaces and line ends included.
    """
    if CALL not in template:
        return template
    known = {f"%{letter}": TODAY.strftime(f"%{letter}") for letter in DIRECTIVES} | UNPADDED
    known |= {"%s": str(int(TODAY.timestamp())), "%f": "000000", "%%": "%"}
    steps = "".join(f"|replace({name!r},{value!r})" for name, value in known.items())
    return f"{{% macro {CALL}(format='%c') %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"


def draws(template: str) -> bool:
    """Tell whether the template may write another text each time it is asked."""
    return CHANCE.search(template) is not None


def asks_for_date(folder: Path) -> bool:
    """Tell whether the chat template in a model's folder asks for the date."""
    for name in FILES:
        file = folder / name
        if file.is_file() and CALL.encode() in file.read_bytes():
            return True
    return False


def line(folder: Path) -> str:
    """Return a sentence for the card about the date its prompts were written with, if they were."""
    if not asks_for_date(folder):
        return ""
    return f"The chat template asks for the date; in training it was told {TODAY:%Y-%m-%d}."
