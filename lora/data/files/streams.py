"""Data files → bytes and lines: unpacked as they are read, decoded, each line with its number."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.files.listing import DataFile, one_line

MAX_LINE_BYTES = 16 << 20
MAX_DOCUMENT_BYTES = 1 << 30  # a JSON document must be held whole; JSON Lines has no such limit
IN_MEMORY_BYTES = 64 << 20
BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that could not be decoded
BROKEN = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile)
NOT_OPENED = (RuntimeError, NotImplementedError)  # an encrypted member, an unknown compression


@contextlib.contextmanager
def opened(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked; BadData for whatever goes wrong while the block runs."""
    try:
        with contextlib.ExitStack() as stack:
            if file.member:
                archive = stack.enter_context(zipfile.ZipFile(file.path))
                packed: IO[bytes] = stack.enter_context(archive.open(file.member))
            else:
                packed = stack.enter_context(file.path.open("rb"))
            yield stack.enter_context(_unpacked(packed, file.packing))
    except (*BROKEN, *NOT_OPENED) as problem:
        if isinstance(problem, RecursionError):
            raise
        raise BadData(f"{file.shown} cannot be unpacked: {one_line(problem)}") from None
    except OSError as problem:
        why = problem.strerror or one_line(problem)
        raise BadData(f"cannot read {file.shown}: {why}") from None


def _unpacked(packed: IO[bytes], packing: str) -> IO[bytes]:
    match packing:
        case "":
            return packed
        case ".gz":
            return gzip.open(packed)  # type: ignore[return-value]  # typed without read1
        case ".bz2":
            return bz2.open(packed)
        case ".zst" | ".zstd":
            import pyarrow

            stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, "r"), "zstd")
            return io.BufferedReader(stream)
        case _:
            return lzma.open(packed)


@contextlib.contextmanager
def seekable(file: DataFile) -> Iterator[IO[bytes]]:
    """The same, for readers that jump about: what is packed is unpacked into a temporary file."""
    with opened(file) as stream:
        if not (file.packing or file.member):
            yield stream
            return
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as whole:
            while chunk := stream.read(1 << 20):
                whole.write(chunk)
            whole.seek(0)
            yield whole


def lines(file: DataFile) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end), one line in memory at a time.

    Ends are LF, CR LF or CR. The text is UTF-8, or what its byte order mark says. BadData for bytes
    that are none, zero bytes, and a line longer than MAX_LINE_BYTES.
    """
    with opened(file) as stream:
        text, number = _decoding(stream), 0
        try:
            while line := text.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    limit = MAX_LINE_BYTES >> 20
                    raise BadData(f"{file.shown}:{number}: the line is longer than {limit} MiB")
                checked(line, f"{file.shown}:{number}")
                yield number, line.rstrip("\n").removeprefix("\ufeff")
        except UnicodeDecodeError as problem:  # UTF-16 and UTF-32 stop where they break
            raise BadData(f"{file.shown}:{number + 1}: not {problem.encoding}") from None
        finally:
            text.detach()


def document(file: DataFile) -> str:
    """The whole text, ends of lines as LF; BadData if it is larger than MAX_DOCUMENT_BYTES."""
    with opened(file) as stream:
        raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        limit = MAX_DOCUMENT_BYTES >> 20
        raise BadData(f"{file.shown}: more than {limit} MiB in one document; save it as .jsonl")
    text = _decoding(io.BytesIO(raw))
    try:
        whole = text.read()
    except UnicodeDecodeError as problem:
        raise BadData(f"{file.shown}: not {problem.encoding}") from None
    if not whole.isascii() or "\0" in whole:
        for number, line in enumerate(whole.split("\n"), 1):
            checked(line, f"{file.shown}:{number}")
    return whole.removeprefix("\ufeff")


def _decoding(stream: IO[bytes]) -> io.TextIOWrapper:
    buffered = stream if isinstance(stream, io.BufferedReader) else _buffered(stream)
    head = buffered.peek(4)[:4]
    encoding = next((name for mark, name in BOMS if head.startswith(mark)), "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    return io.TextIOWrapper(buffered, encoding=encoding, errors=errors, newline=None)


def _buffered(stream: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(stream)  # type: ignore[arg-type]  # every stream here can readinto


def checked(text: str, origin: str) -> None:
    """Raise BadData for text that holds bytes which are not UTF-8, or zero bytes."""
    if not text.isascii() and (escaped := ESCAPED.search(text)):
        place = len(text[: escaped.start()].encode()) + 1
        byte = ord(escaped.group()) - 0xDC00
        raise BadData(f"{origin}: byte {place} (0x{byte:02x}) is not UTF-8; save the file as UTF-8")
    if "\0" in text:
        raise BadData(f"{origin}: holds a zero byte, so it is not text")
