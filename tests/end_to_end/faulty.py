"""`nomoat` as a broken or hostile machine runs it: python faulty.py FAULT COMMAND…

stuck     trains, and never says that it is ready
tampers   alters a byte of its masked update after it was signed
honest    has no fault

They train by arithmetic (arithmetic.py): it is not the model that this is about.
Whatever the fault, the process tells the test what nobody else may learn: in the folder TOLD of its
environment it leaves the entropy of each session, and every message it got or sent.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from arithmetic import by_arithmetic

from nomoat.client.round import masked_session
from nomoat.client.training import trainer
from nomoat.client.volunteer import assemble

TOLD = Path(os.environ["TOLD"])


def tell(what: str, data: bytes) -> None:
    (TOLD / f"{uuid.uuid4().hex}.{what}").write_bytes(data)


def stuck() -> None:
    train = trainer.Trainer.train

    def forever(self: trainer.Trainer, work: Any) -> Any:
        train(self, work)
        threading.Event().wait()

    trainer.Trainer.train = forever  # type: ignore[method-assign]


def overheard(tampers: bool) -> None:
    sealed, secrets = assemble.sealed, masked_session.SessionSecrets

    def answering(app: Any, belonging: Any) -> Any:
        honest = sealed(app, belonging)

        def answer(message: Any, context: Any) -> Any:
            for record in message.content.config_records.values():
                tell("message", record["bytes"])
            kind = message.metadata.message_type
            reply = honest(message, context)
            if tampers and kind == "query.sa_share_set":
                head = bytes(reply.content.config_records["head"]["bytes"])
                reply.content.config_records["head"]["bytes"] = head[:-1] + bytes([head[-1] ^ 1])
            for record in reply.content.config_records.values():
                tell("message", record["bytes"])
            return reply

        return answer

    def confessed(entropy: bytes) -> Any:
        tell("entropy", entropy)
        return secrets(entropy)

    assemble.sealed = answering  # type: ignore[attr-defined]
    masked_session.SessionSecrets = confessed  # type: ignore[attr-defined,misc,assignment]


if __name__ == "__main__":
    fault = sys.argv.pop(1)
    by_arithmetic()
    overheard(fault == "tampers")
    if fault == "stuck":
        stuck()
    from nomoat.__main__ import main

    main()
