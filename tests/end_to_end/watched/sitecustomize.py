"""Imported by every Python process that has this folder in PYTHONPATH: notes whom it talks to."""

import os
import sys

EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS:
        address = arguments[:2] if event == "socket.getaddrinfo" else arguments[1]
        if isinstance(address, tuple):  # the rest are pipes on this machine
            with open(os.environ["WATCHED"], "a") as file:
                file.write(f"{event} {address[0]} {address[1]}\n")


if "WATCHED" in os.environ:
    sys.addaudithook(note)
