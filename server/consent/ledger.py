"""agreed.json: the terms that hold, their edition, and those each member agreed to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.community.terms import TermsEdition
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import AgreedTerms
from nomoat.storage.atomic import replacing
from nomoat.storage.releases import record

NAMED = 5  # of those who refuse


@dataclass(frozen=True)
class Consents:
    """The content of agreed.json; members by the SHA-256 of their node key, hex.

    edition: of the terms that hold, 0 before there was any; digest: of its content. heard: the
    newest edition that a member said it agrees to.
    """

    announced: AgreedTerms
    members: Mapping[str, AgreedTerms] = field(default_factory=dict)
    edition: int = 0
    at: int = 0
    digest: str = ""
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ConsentLedger:
    """Keeps one community's agreed.json."""

    path: Path
    registrar: Registrar
    _writing: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def keep(self, now: AgreedTerms, settings: Path, announce: bool) -> None:
        """Note the terms that hold from now on, and those members agreed to until now.

        announce: members who agreed to stricter ones are asked again. UsageError if they would not
        be, and so would refuse every round.
        """
        before = self.read(now)
        names = self._names()
        agreed = {key: before.members.get(key, before.announced) for key in names}
        refusing = sorted(names[key] for key, terms in agreed.items() if terms.refuse(now))
        if refusing and not announce:
            raise UsageError(f"{settings}: {_refusal(refusing, agreed, now)}")
        heard = {key: number for key, number in before.heard.items() if key in names}
        self._write(replace(before, announced=now, members=agreed, heard=heard))

    def edition(self, unsigned: TermsEdition, now: int) -> TermsEdition:
        """Number the terms that hold: as before if they are the same, else one more."""
        with self._writing:
            known = self.read(AgreedTerms(unsigned.secure, unsigned.least))
            digest = hashlib.sha256(unsigned.content()).hexdigest()
            if digest != known.digest:
                known = replace(known, edition=known.edition + 1, at=now, digest=digest)
                self._write(known)
        return replace(unsigned, number=known.edition, at=known.at)

    def agree(self, node_key: bytes, number: int) -> None:
        """Note that a member agrees to the edition that holds; UsageError if that is another."""
        with self._writing:
            known = self.read(None)
            if number != known.edition:
                raise UsageError(f"edition {known.edition} of the terms holds now, not {number}")
            key = hashlib.sha256(node_key).hexdigest()
            members = {**known.members, key: known.announced}
            heard = {**known.heard, key: number}
            self._write(replace(known, members=members, heard=heard))

    def refusing(self) -> frozenset[str]:
        """Names of members who agreed to stricter terms than those that hold."""
        known = self.read(None)
        keys = [key for key, terms in known.members.items() if terms.refuse(known.announced)]
        if not keys:
            return frozenset()
        names = self._names()
        return frozenset(names[key] for key in keys if key in names)

    def read(self, now: AgreedTerms | None) -> Consents:
        """Read the file; without it, of a folder that is new or older, `now` and nobody."""
        try:
            return _parsed(dict(json.loads(self.path.read_bytes())), self.path)
        except FileNotFoundError:
            return Consents(now or AgreedTerms(secure=False, least=2))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NomoatError(
                f"{self.path} is damaged; delete it if no setting was made less strict since "
                "volunteers joined"
            ) from None

    def _names(self) -> dict[str, str]:
        """SHA-256 of the node key → name, of those who have not left."""
        return {
            hashlib.sha256(applicant.binding.node_key).hexdigest(): applicant.binding.name
            for applicant in self.registrar.database.applicants()
            if applicant.standing not in {Standing.LEFT, Standing.BANNED}
        }

    def _write(self, content: Consents) -> None:
        with replacing(self.path) as file:
            file.write(json.dumps(asdict(content)).encode())


def _parsed(content: dict[str, object], path: Path) -> Consents:
    found = record(Consents, content, path)
    members = {key: AgreedTerms(**terms) for key, terms in found.members.items()}  # type: ignore[arg-type]
    return replace(found, announced=AgreedTerms(**found.announced), members=members)  # type: ignore[arg-type]


def _refusal(refusing: list[str], agreed: Mapping[str, AgreedTerms], now: AgreedTerms) -> str:
    who = ", ".join(refusing[:NAMED]) + (", …" if len(refusing) > NAMED else "")
    masked = any(terms.secure for terms in agreed.values()) and not now.secure
    least = max(terms.least for terms in agreed.values())
    wanted = "secure = true" if masked else f"{least} participants or more"
    return (
        f"{len(refusing)} volunteers ({who}) agreed to {wanted} when they joined and would refuse "
        "every round; set that again (min_volunteers, min_reports, allow_weak), or ask them with "
        "nomoat up --new-terms: each takes no part until its owner agrees"
    )
