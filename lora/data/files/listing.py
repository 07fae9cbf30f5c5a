"""Find the data files at a path: folders, links, archives, and all that is left unread, with why.

Never read are hidden files and what systems leave beside others (resource forks, `__MACOSX`).
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.files import dataset_folders

KINDS = (
    ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt",
    ".parquet", ".pq", ".arrow", ".feather", ".ipc",
)  # fmt: skip
NOT_A_KIND = "not a kind that is read"
PACKINGS = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".zstd")
LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "__pycache__"})
ABOUT = re.compile(  # beside data, these tell of it
    r"(readme|licen[cs]e|copying|notice|authors|contribut|change_?log|citation|requirements|"
    r"(sha|md5|b2)\d*sums?|checksums?)([-_. ].*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file with rows. `shown` is its name in messages, always printable Unicode.

    kind: its suffix, one of KINDS. packing: the suffix of what it is compressed with, or "".
    member: its name inside the ZIP archive `path`, or "".
    """

    path: Path
    shown: str
    kind: str
    packing: str = ""
    member: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file or folder that was found and not read."""

    shown: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The data files at a path, in the order in which they are read, and what else was there."""

    files: tuple[DataFile, ...]
    unread: tuple[Unread, ...] = ()


def find(path: Path) -> Listing:
    """List the data files at `path`, sorted by name; BadData if there is none."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "not a path"
        raise BadData(f"there is no file or folder {shown(path)} ({why})") from None
    if stat.S_ISDIR(mode):
        walk = _Walk(path)
        walk.enter(path)
        if not walk.files:
            rest = _some_of(walk.unread)
            raise BadData(f"the folder {shown(path)} holds no data file ({_kinds()}){rest}")
        files = sorted(walk.files, key=lambda file: (file.path.parts, file.member))
        return Listing(tuple(files), tuple(sorted(walk.unread, key=lambda u: u.shown)))
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise BadData(f"{shown(path)} is neither a file nor a folder")
    if path.suffix.lower() == ".zip":
        listing = _in_zip(path)
        if not listing.files:
            raise BadData(
                f"{shown(path)} holds no data file ({_kinds()}){_some_of(listing.unread)}"
            )
        return listing
    file = _data_file(path)
    if isinstance(file, str):
        raise BadData(f"{shown(path)}: {file}")
    return Listing((file,))


def shown(path: Path | str) -> str:
    """A path as printable Unicode: bytes that are not UTF-8 stand as \\xff."""
    raw = os.fspath(path).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def one_line(problem: object, most: int = 120) -> str:
    """An exception of a library as the end of a sentence: one line, cut."""
    return " ".join(str(problem).split())[:most] or type(problem).__name__


@dataclass(slots=True)
class _Walk:
    """Everything below a folder, each file and folder once, however many links lead to it."""

    top: Path
    files: list[DataFile] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    _known: dict[tuple[int, int], str] = field(default_factory=dict)

    def enter(self, folder: Path) -> None:
        """Look at everything in `folder`; what is no link first, so that it gives the name."""
        if not self._is_new(folder):
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda e: (e.is_symlink(), e.name))
        except OSError as problem:
            raise BadData(f"cannot read {shown(folder)}: {problem.strerror or problem}") from None
        saved = dataset_folders.saved(folder)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.lower() in LEFT_BY_SYSTEMS:
                self._leave(path, "hidden, or left by a system")
            elif reason := saved.leaves_out(entry.name):
                self._leave(path, reason)
            elif path.is_dir():
                self.enter(path)
            else:
                self._take(path)

    def _take(self, path: Path) -> None:
        if not path.is_file():
            self._leave(path, "no file" if path.exists() else "a link to nothing")
        elif path.suffix.lower() == ".zip":
            if self._is_new(path):
                inside = _in_zip(path)
                self.files += inside.files
                self.unread += inside.unread
        elif isinstance(file := _data_file(path), str):
            self._leave(path, NOT_A_KIND)
        elif ABOUT.fullmatch(_stem(path.name)) and file.kind in (".txt", ".json"):
            self._leave(path, "tells about the data")
        elif path.stat().st_size == 0:
            self._leave(path, "is empty")
        elif self._is_new(path):
            self.files.append(file)

    def _is_new(self, path: Path) -> bool:
        found = path.stat()
        identity = (found.st_dev, found.st_ino)
        first = self._known.setdefault(identity, shown(path))
        if first != shown(path) and found.st_ino:
            self._leave(path, f"is {first} again")
            return False
        return True

    def _leave(self, path: Path, reason: str) -> None:
        self.unread.append(Unread(shown(path), reason))


def _data_file(path: Path, member: str = "") -> DataFile | str:
    """The file as data, or why it is none. A member's path is that of its archive."""
    name = PurePosixPath(member).name if member else path.name
    stem, packing = name.lower(), ""
    for suffix in PACKINGS:
        if stem.endswith(suffix):
            stem, packing = stem.removesuffix(suffix), suffix
    kind = PurePosixPath(stem).suffix
    if kind not in KINDS:
        what = kind or "a file without a suffix"
        if packing:
            what = f"{what} inside {packing}"
        return f"{what} cannot be read; {_kinds()} can"
    where = f"{shown(path)}/{shown(member)}" if member else shown(path)
    return DataFile(path, where, kind, packing, member)


def _in_zip(path: Path) -> Listing:
    """The members of a ZIP archive; BadData if it is none."""
    files: list[DataFile] = []
    unread: list[Unread] = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as problem:
        raise BadData(f"{shown(path)} cannot be unpacked: {one_line(problem)}") from None
    for member in (found for found in members if not found.is_dir()):
        file = _data_file(path, member.filename)
        reason = file if isinstance(file, str) else _unwanted(member, file)
        if isinstance(file, str) or reason:
            reason = NOT_A_KIND if isinstance(file, str) else reason
            unread.append(Unread(f"{shown(path)}/{shown(member.filename)}", reason))
        else:
            files.append(file)
    return Listing(tuple(files), tuple(unread))


def _unwanted(member: zipfile.ZipInfo, file: DataFile) -> str:
    """Return why a member of a known kind is not read; empty if it is."""
    parts = PurePosixPath(member.filename).parts
    if any(part.startswith(".") or part.lower() in LEFT_BY_SYSTEMS for part in parts):
        return "hidden, or left by a system"
    if ABOUT.fullmatch(_stem(parts[-1])) and file.kind in (".txt", ".json"):
        return "tells about the data"
    if member.flag_bits & 0x1:
        return "is encrypted"
    return "" if member.file_size else "is empty"


def _stem(name: str) -> str:
    return name.split(".", 1)[0]


def _kinds() -> str:
    return ", ".join(sorted(KINDS))


def _some_of(unread: list[Unread] | tuple[Unread, ...]) -> str:
    """A few of the files that were left, as the end of a sentence."""
    named = [f"{Path(left.shown).name}: {left.reason}" for left in unread[:3]]
    return f"; not read: {'; '.join(named)}" if named else ""


def names(unread: tuple[Unread, ...], most: int = 8) -> Iterator[str]:
    """A line for each file that was not read, `most` of them, and how many more there are."""
    for left in unread[:most]:
        yield f"{left.shown} ({left.reason})"
    if len(unread) > most:
        yield f"and {len(unread) - most} more"
