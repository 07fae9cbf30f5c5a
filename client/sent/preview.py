"""The update that a round would send, before anything is sent."""

from __future__ import annotations

import time
from collections.abc import Callable

from nomoat.aggregation import methods
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import Report
from nomoat.aggregation.secagg.messages import MaskedReport
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.home import CommunityFolder
from nomoat.client.sent.log import SentMessage, tensors_of

VALUE_BYTES = 4  # at most: masked values are packed into fewer bits


def next_update(
    folder: CommunityFolder, coordinator: Callable[[], CoordinatorClient]
) -> SentMessage:
    """The largest message of the next round, as the log will show it: size at most, norm unknown.

    Asks the coordinator for the adapter's shape if it is not known here yet.
    """
    info = folder.info()
    number, adapter = _newest(folder, coordinator)
    manifest = methods.get(info.method).manifest(adapter.spec, number + 1, 1)
    kind = MaskedReport if info.secure else Report
    return SentMessage(
        time.time(),
        info.name,
        folder.load().address,
        wire.kind_of(kind),
        number + 1,
        VALUE_BYTES * manifest.size,
        "",
        masked=info.secure,
        tensors=tensors_of(manifest),
        session_size=info.min_participants if info.secure else None,
    )


def _newest(
    folder: CommunityFolder, coordinator: Callable[[], CoordinatorClient]
) -> tuple[int, Adapter]:
    record = folder.version()
    if record is not None and folder.adapter(record).exists():
        data, version = folder.adapter(record).read_bytes(), record.version
        return version.number, lineage.from_file(data, version.adapter, str(folder.root))
    client, now = coordinator(), int(time.time())
    record = coordinator_api.lineage_since(client, None, now).record
    return record.version.number, coordinator_api.download(client, record, now)
