"""Bytes between a coordinator and its volunteers, as a packet capture on the loopback counts them.

A raw socket sees every IP packet; those from or to one TCP port are added up, headers included.
Linux only, and only for those who may capture.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33  # linux/socket.h; the socket module does not name it
PACKET_OUTGOING = 4  # on the loopback each packet is seen leaving and arriving: one counts
TCP = 6
HEAD_BYTES = 80  # IP header and TCP ports
BUFFER_BYTES = 64 << 20


class Capture:
    """Counts while the block runs; PermissionError where capturing is not allowed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        # Whoever may capture may mostly pass the system's limit on buffers, too.
        for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
                break
        self._socket.bind(("lo", ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.up = 0  # to the port
        self.down = 0

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    @property
    def dropped(self) -> int:
        """Packets the kernel could not hand over since this was last asked."""
        counts = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        return int(struct.unpack("II", counts)[1])

    def _listen(self) -> None:
        head = bytearray(HEAD_BYTES)
        while not self._over.is_set():
            try:
                size, _, _, address = self._socket.recvmsg_into([head], 0, socket.MSG_TRUNC)
            except TimeoutError:
                continue
            _, protocol, kind, *_ = address
            if kind == PACKET_OUTGOING:
                continue
            ports = _ports(head, protocol)
            if ports is not None and self._port in ports:
                if ports[1] == self._port:
                    self.up += size
                else:
                    self.down += size


def _ports(packet: bytearray, protocol: int) -> tuple[int, int] | None:
    """(source, destination) of a TCP packet, None of any other."""
    if protocol == ETH_P_IP:
        start, carries = 4 * (packet[0] & 15), packet[9]
    elif protocol == ETH_P_IPV6:
        start, carries = 40, packet[6]
    else:
        return None
    if carries != TCP:
        return None
    source, destination = struct.unpack_from("!HH", packet, start)
    return source, destination
