"""Cases: what anybody can recompute of a volunteer's lie, and what it says to it, in the database.

Evidence is named by its SHA-256, which stands in the roster with the hold (docs/protocol.md §20.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.aggregation.errors import Refused
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.history.appeal import Appeal
from nomoat.aggregation.secagg.audit.evidence import ProvenLie, digest_of, finding, from_bytes
from nomoat.server.community.database import Database
from nomoat.server.community.members import Registrar
from nomoat.server.conduct.sizes import REMEMBERED

MAY_APPEAL = frozenset({Standing.HELD, Standing.BANNED})


@dataclass(frozen=True)
class KeptEvidence:
    """One piece of evidence as it is kept: of which round, whom it is about, and its bytes."""

    digest: bytes
    volunteer: str
    round: int
    data: bytes

    def read(self) -> ProvenLie:
        """Recompute what it shows; RemoteProtocolError if it shows nothing."""
        return finding(from_bytes(self.data, f"evidence {self.digest.hex()[:16]}"))


@dataclass(frozen=True, slots=True)
class KeptAppeal:
    """The last appeal of a volunteer, and when it came (unix time)."""

    text: str
    at: int


@dataclass(frozen=True)
class Cases:
    """Evidence and appeals of one community."""

    database: Database

    def keep(self, volunteer: str, number: int, data: bytes, now: int) -> None:
        """Write evidence of a round down; the same is kept once."""
        sql = "INSERT INTO evidence VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING"
        self.database.run(sql, digest_of(data), volunteer, number, now, data)

    def of(self, volunteer: str) -> list[KeptEvidence]:
        """All evidence about a volunteer, in the order of rounds."""
        sql = "SELECT digest, volunteer, round, data FROM evidence WHERE volunteer = ? "
        rows = self.database.rows(sql + "ORDER BY round", volunteer)
        return [KeptEvidence(*row) for row in rows]

    def count(self, volunteer: str) -> int:
        """Count the pieces of evidence about a volunteer."""
        sql = "SELECT count(*) FROM evidence WHERE volunteer = ?"
        return int(self.database.rows(sql, volunteer)[0][0])

    def get(self, digest: bytes) -> bytes | None:
        """Evidence by its name."""
        rows = self.database.rows("SELECT data FROM evidence WHERE digest = ?", digest)
        return rows[0][0] if rows else None

    def hear(self, registrar: Registrar, identity: bytes, appeal: Appeal, now: int) -> None:
        """Keep what a volunteer says to its hold or ban; a later word takes the place of it."""
        member = registrar.roster().named(identity)
        if member is None or member.standing not in MAY_APPEAL:
            raise Refused("only who is held or banned can appeal")
        said = {"text": appeal.text.replace("\0", " "), "at": now}
        self.database.put("appeals", "volunteer", volunteer=member.binding.name, **said)

    def appeal_of(self, volunteer: str) -> KeptAppeal | None:
        """The appeal of a volunteer, if it has made one."""
        rows = self.database.rows("SELECT text, at FROM appeals WHERE volunteer = ?", volunteer)
        return KeptAppeal(*rows[0]) if rows else None

    def note_sizes(self, number: int, sizes: Mapping[str, float], now: int) -> None:
        """Note how large audited updates were, over the bound; of each the last few are kept."""
        for name, size in sizes.items():
            self.database.run("INSERT INTO sizes VALUES (?, ?, ?, ?)", name, number, now, size)
            kept = "SELECT rowid FROM sizes WHERE volunteer = ? ORDER BY rowid DESC LIMIT ?"
            sql = f"DELETE FROM sizes WHERE volunteer = ? AND rowid NOT IN ({kept})"  # noqa: S608
            self.database.run(sql, name, name, REMEMBERED)

    def sizes_of(self, volunteer: str, after: int = -1) -> list[float]:
        """The sizes of a volunteer's last audited updates since a time, in order."""
        sql = "SELECT size FROM sizes WHERE volunteer = ? AND at > ? ORDER BY rowid"
        return [row[0] for row in self.database.rows(sql, volunteer, after)]

    def rename(self, name: str, other: str) -> None:
        """Put another name in the place of a volunteer's; what it wrote is gone."""
        self.database.run("UPDATE evidence SET volunteer = ? WHERE volunteer = ?", other, name)
        self.database.run("DELETE FROM sizes WHERE volunteer = ?", name)
        self.database.run("DELETE FROM appeals WHERE volunteer = ?", name)
