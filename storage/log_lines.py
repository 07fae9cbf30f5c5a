"""Log lines that draw on no terminal and look like no other line, whatever a peer has said."""

from __future__ import annotations

import logging

from nomoat.aggregation.plain_text import one_line


class PlainFormatter(logging.Formatter):
    """Formats as its base does, the message on one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, without what is not printed as itself."""
        return one_line(super().formatMessage(record))
