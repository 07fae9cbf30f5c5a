"""The file of a backup: an ordinary tar, its manifest first, its keys sealed.

manifest.json     what it is of, and the size and SHA-256 of every file that follows
keys.sealed       keys/*, under a passphrase (sealing.py), which vouches for the manifest, too
community.toml, community.db, certificates/…, adapters/…, as they lie in the folder
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from nomoat.aggregation.errors import BadData
from nomoat.storage.atomic import replacing

FORMAT = 1
MANIFEST, KEYS = "manifest.json", "keys.sealed"
NAMES = re.compile(
    r"community\.(toml|db)|agreed\.json|evaluation\.jsonl|canaries\.jsonl|origin\.rec|restored\.rec|keys\.rec|"
    r"certificates/(authority|server)\.pem|adapters/[0-9a-f]{64}\.adapter"
)
KEY_NAMES = re.compile(r"keys/(community|authority|server)\.key")
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class FileDigest:
    """A file's size and SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class BackupManifest:
    """The contents of a backup. at: unix time. version, round: the newest there were."""

    community: str
    name: str
    version: int
    round: int
    at: int
    files: dict[str, FileDigest]
    format: int = FORMAT

    def encode(self) -> bytes:
        """The manifest as it is written, and vouched for."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> BackupManifest:
        """Read a manifest; ValueError, KeyError or TypeError if it is none."""
        found = json.loads(data)
        files = {name: FileDigest(**each) for name, each in found.pop("files").items()}
        if found.get("format") != FORMAT or not all(map(NAMES.fullmatch, files)):
            raise ValueError("another format")
        return cls(**found, files=files)


def digest_of(path: Path) -> FileDigest:
    """A file's size and digest, read piece by piece."""
    with path.open("rb") as file:
        return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def write(to: Path, manifest: BackupManifest, sealed: bytes, files: Mapping[str, Path]) -> None:
    """Write a backup, whole or not at all, for its owner's eyes only."""
    with replacing(to, 0o600) as file, tarfile.open(fileobj=file, mode="w|") as archive:
        for name, content in ((MANIFEST, manifest.encode()), (KEYS, sealed)):
            archive.addfile(_entry(name, len(content)), io.BytesIO(content))
        for name, path in files.items():
            with path.open("rb") as content_file:
                archive.addfile(_entry(name, manifest.files[name].size), content_file)


def read(path: Path, into: Path) -> tuple[BackupManifest, bytes, bytes]:
    """Unpack a backup into a folder: (manifest, its bytes, the sealed keys).

    Only files a community has are written, each only if it is what the manifest says. BadData if
    the file is no backup, or damaged.
    """
    try:
        with tarfile.open(path, mode="r|") as archive:
            taken: dict[str, bytes] = {}
            manifest = None
            for entry in archive:
                content = archive.extractfile(entry)
                if content is None:
                    raise ValueError(f"{entry.name} is no file")
                if entry.name in (MANIFEST, KEYS):
                    taken[entry.name] = content.read(16 << 20)
                    continue
                manifest = manifest or BackupManifest.decode(taken[MANIFEST])
                _take(content, into / entry.name, manifest.files[entry.name])
        manifest = manifest or BackupManifest.decode(taken[MANIFEST])
        missing = [name for name in manifest.files if not (into / name).is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return manifest, taken[MANIFEST], taken[KEYS]
    except OSError as problem:
        raise BadData(f"cannot read {path}: {problem.strerror or problem}") from None
    except (tarfile.TarError, ValueError, KeyError, TypeError) as problem:
        raise BadData(f"{path} is no backup of a community, or damaged: {problem}") from None


def _take(content: IO[bytes], to: Path, wanted: FileDigest) -> None:
    digest, size = hashlib.sha256(), 0
    with replacing(to) as file:
        while piece := content.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
    if FileDigest(size, digest.hexdigest()) != wanted:
        raise ValueError(f"{to.name} is not what was saved")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry
