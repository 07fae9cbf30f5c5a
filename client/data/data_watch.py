"""Data that is edited or deleted while a community runs: noticed before each round, and told.

The owner's choice (`data_changes` in settings.toml): refresh trains on the rows as they are now,
keep goes on with the copy of before, stop trains no more until `nomoat run` is started again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nomoat.aggregation.errors import BadData
from nomoat.client.data.split import Split

Choice = Literal["refresh", "keep", "stop"]


@dataclass
class DataWatch:
    """Looks at the data's names, sizes and times; `told` gets a sentence, or None if all is well.

    stamp: of the data as it is now; BadData if it is gone. prepare: reads it anew. forget: deletes
    the copy of its rows, which the owner has deleted.
    """

    choice: Choice
    stamp: Callable[[], str]
    prepare: Callable[[], Split]
    told: Callable[[str | None], None]
    known: str
    forget: Callable[[], None] = lambda: None

    def rows(self, current: Split, *, measuring: bool = False) -> Split:
        """Return the rows of the next piece of work; BadData, in one sentence, if there are none.

        measuring: it is an evaluation, and what was told of the round's training stands.
        """
        try:
            now = self.stamp()
        except BadData as gone:
            if self.choice != "keep":
                self.forget()
                self.known = ""
            return self._changed(current, f"it is gone ({gone})", readable=False)
        if now == self.known:
            if not measuring:
                self.told(None)
            return current
        found = self._changed(current, "it was changed", readable=True)
        if found is not current:
            self.known = now
        return found

    def _changed(self, current: Split, what: str, readable: bool) -> Split:
        if self.choice == "keep":
            self.told(f"{what}; the copy of before is trained on, as data_changes = keep says")
            return current
        if self.choice == "stop":
            problem = f"{what}; nothing is trained until nomoat run starts again (data_changes)"
            self.told(problem)
            raise BadData(f"the data: {problem}")
        if not readable:
            self.told(f"{what}; nothing is trained until it is back")
            raise BadData(f"the data: {what}; nothing is trained until it is back")
        try:
            found = self.prepare()
        except BadData as problem:
            self.told(f"{what} and cannot be used: {problem}")
            raise
        self.told(f"{what}; from now on its {found.train_rows} rows of now are trained on")
        return found
