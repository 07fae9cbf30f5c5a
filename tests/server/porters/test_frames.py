"""Frames come back as they were, however they are cut; what is none ends the link."""

from __future__ import annotations

import pytest

from nomoat.server.porters.frames import (
    MOST_BYTES,
    Answered,
    Asked,
    BodyPiece,
    BrokenLink,
    Due,
    Frame,
    Frames,
    HeldOpen,
    Listening,
    MemberChanges,
    NewCertificate,
    encode,
)

EACH: tuple[Frame, ...] = (
    Listening(),
    Asked(1, "POST", "/v1/fleet/x", b"a=b", ((b"a", b"\xff"),), "::1", b"pem", b"\0" * 9, 5, 7),
    Due(2**40),
    Answered(3, 200, ((b"x", b"y"),), b"body", "/a/file", True),
    HeldOpen(4, 49.5),
    BodyPiece(5, b"rest", False),
    MemberChanges(((b"key", "ada", b"\1" * 32),), (b"gone",)),
    NewCertificate(),
)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_come_back_as_they_were_however_they_are_cut(size: int) -> None:
    said = b"".join(map(encode, EACH))
    frames, heard = Frames(), []
    for at in range(0, len(said), size):
        heard += frames.feed(said[at : at + size])
    assert tuple(heard) == EACH


@pytest.mark.parametrize(
    "said",
    [
        b"\1\0\0\0\xc1",
        encode(Due(1))[:-1] + b"\xc1",
        b"\2\0\0\0\x91\x63",
        b"\2\0\0\0\x91\xff",
        b"\1\0\0\0\x90",
        (MOST_BYTES + 1).to_bytes(4, "little"),
    ],
)
def test_what_is_no_frame_breaks_the_link(said: bytes) -> None:
    with pytest.raises(BrokenLink):
        list(Frames().feed(said))
