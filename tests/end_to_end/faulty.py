"""`nomoat` with a fault: python faulty.py FAULT COMMAND…, the way a broken or hostile machine runs.

stuck     trains, and never says that it is ready
tampers   alters a byte of its masked update after it was signed
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from nomoat.client import hands, volunteer


def stuck() -> None:
    train = hands.Hands.train

    def forever(self: hands.Hands, work: Any) -> Any:
        train(self, work)
        threading.Event().wait()

    hands.Hands.train = forever  # type: ignore[method-assign]


def tampers() -> None:
    sealed = volunteer.sealed

    def tampering(app: Any, belonging: Any) -> Any:
        honest = sealed(app, belonging)

        def answer(message: Any, context: Any) -> Any:
            kind = message.metadata.message_type
            reply = honest(message, context)
            if kind == "query.sa_share_set":
                head = bytes(reply.content.config_records["head"]["bytes"])
                reply.content.config_records["head"]["bytes"] = head[:-1] + bytes([head[-1] ^ 1])
            return reply

        return answer

    volunteer.sealed = tampering  # type: ignore[attr-defined]


if __name__ == "__main__":
    {"stuck": stuck, "tampers": tampers}[sys.argv.pop(1)]()
    from nomoat.__main__ import main

    main()
