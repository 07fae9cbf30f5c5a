"""Connections to one port that attacks open, and what is seen of the answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field

HEAD = b"POST /v1/fleet/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/protobuf\r\n"


@dataclass
class Attack:
    """Connections to one port, opened by attacks and closed with the block."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    sockets: list[socket.socket] = field(default_factory=list)
    fivehundreds: int = 0
    noted: str = ""  # what shows that the attack was one

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection to the port, kept until the attack is over."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        made = context.wrap_socket(raw)
        self.sockets.append(made)
        return made

    def connect_silently(self) -> None:
        """A TCP connection that never shakes hands, kept until the attack is over."""
        self.sockets.append(socket.create_connection(("127.0.0.1", self.port), 5))

    def say(self, data: bytes, *, listen: bool = True) -> None:
        """Send something on a connection of its own; note an answer of 500."""
        with contextlib.suppress(OSError):
            line = self.connect()
            line.settimeout(5)
            line.sendall(data)
            if listen:
                self.fivehundreds += line.recv(16)[9:10] == b"5"
                line.close()
                self.sockets.remove(line)

    def close(self) -> None:
        """Let go of everything."""
        self.over.set()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.close()


def call(name: bytes, length: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    """A fleet call's head, with a length that need not be its body's."""
    return HEAD % name + headers + b"content-length: %d\r\n\r\n" % length + body
