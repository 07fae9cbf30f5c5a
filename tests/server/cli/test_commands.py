"""The coordinator's commands: light to start, JSON for programs, one line and a code on errors."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner, Result

from builders import adapter
from nomoat.aggregation.errors import NomoatError, Refused, UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims, from_link
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.cli import app
from nomoat.lora.export.order import ExportTarget
from nomoat.server.community.certificates import only_here
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from nomoat.server.release.rolling_back import heed
from nomoat.server.rounds.settings import AdapterSettings
from nomoat.storage.atomic import held


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        adapter=AdapterSettings(rank=2, alpha=4.0),  # those of builders' adapters
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    made = Folder(tmp_path / "town")
    create(made, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    versions = OpenCommunity.open(made.root).versions
    for number in range(3):
        versions.add(adapter(number), Provenance(number, "fedavg", ("ada",), 3.0, 3.1), 100)
    return made.root


def enrol(folder: Path, name: str, number: int, token: bytes) -> None:
    community = OpenCommunity.open(folder)
    key = ec.derive_private_key(9000 + number, ec.SECP384R1())
    who = bind(name, SigningKey(bytes([number + 1]) * 32), key, community.registrar.key.public)
    community.registrar.enrol(wire.encode(Enrol(token, who)).head, int(time.time()))


def test_the_commands_load_nothing_heavy_until_they_run() -> None:
    heavy = {"flwr", "torch", "transformers", "pydantic", "cryptography", "numpy", "sqlalchemy"}
    program = (
        "import sys, nomoat.server.cli.commands, nomoat.client.cli.app; "
        "import nomoat.simulations.loopback.cli; "
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_a_coordinators_numpy_has_one_thread_beside_those_that_sum(tmp_path: Path) -> None:
    program = """
import os, sys
from nomoat.__main__ import main

class Look:
    def find_spec(self, name, *_):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_NUM_THREADS"))

sys.meta_path.insert(0, Look())
main()
"""
    given = [sys.executable, "-c", program, "up", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(given, capture_output=True, env=environment, check=False)
    assert done.stdout.strip() == b"1"
    assert b"no community is kept in" in done.stderr


def test_an_invitation_is_a_link_on_stdout_and_nothing_else(folder: Path) -> None:
    result = run("invite", str(folder), "--uses", "25", "--expires", "36h", "--quiet")
    (line,) = result.stdout.splitlines()
    claims = from_link(line).claims
    assert (claims.uses, claims.address) == (25, "localhost:8443")
    assert abs(claims.expires - time.time() - 36 * 3600) < 60
    as_json = json.loads(run("invite", str(folder), "--json").stdout)
    assert from_link(as_json["link"]).claims.uses == 1


def test_an_invitation_is_shown_as_a_qr_code_too(folder: Path, tmp_path: Path) -> None:
    result = run("invite", str(folder), "--svg", str(tmp_path / "qr.svg"))
    assert "█" in result.stderr or "▄" in result.stderr
    assert b"<svg" in (tmp_path / "qr.svg").read_bytes()


def test_an_invitation_says_how_it_is_used_and_that_localhost_is_found_here_only(
    folder: Path,
) -> None:
    shown = run("invite", str(folder))
    link = shown.stdout.strip()
    assert f"send this: nomoat join '{link}' --data" in shown.stderr
    assert "localhost:8443 is found on this machine only" in shown.stderr
    assert run("invite", str(folder), "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.7:1", True), ("[::1]:1", True), ("10.0.0.1:1", False), ("a.example:1", False)],
)
def test_an_address_of_this_machine_alone_is_known(address: str, here: bool) -> None:
    assert only_here(address) is here


def test_a_shown_version_says_how_it_is_used_and_help_names_only_commands_there_are(
    folder: Path,
) -> None:
    said = run("adapter", "show", "--dir", str(folder)).stderr
    export = f"nomoat adapter export NEW_FOLDER --version 2 --dir {folder} --to "
    assert export in said
    assert set(ExportTarget) == set(said.partition(export)[2].split()[0].split("|"))
    for command in ("chat", "serve"):
        assert f"nomoat {command} --adapter {folder}" in said
    assert "release" not in run("volunteers", "--help").stdout


def test_invitations_are_listed_and_a_revoked_one_admits_nobody_any_more(folder: Path) -> None:
    links = [run("invite", str(folder), "--uses", "2", "--quiet").stdout for _ in range(2)]
    ids = [from_link(link).claims.identifier.hex() for link in links]
    enrol(folder, "ada", 1, from_link(links[0]).token())
    assert run("invite", str(folder), "--revoke", ids[0][:8]).stdout == ""
    rows = json.loads(run("invite", str(folder), "--list", "--json").stdout)
    assert {row["id"]: (row["state"], row["used"], row["uses"]) for row in rows} == {
        ids[0]: ("revoked", 1, 2),
        ids[1]: ("open", 0, 2),
    }
    with pytest.raises(Refused, match="was revoked"):
        enrol(folder, "ben", 2, from_link(links[0]).token())
    enrol(folder, "ben", 2, from_link(links[1]).token())
    shown = run("invite", str(folder), "--list").stdout
    assert "revoked" in shown
    assert "1 of 2" in shown
    assert "nomoat://" not in shown
    standings = json.loads(run("volunteers", str(folder), "list", "--json").stdout)
    assert [row["standing"] for row in standings] == ["approved", "approved"]  # they stay


@pytest.mark.parametrize("identifier", ["", "ffffffffffff", "not hex at all"])
def test_an_invitation_that_is_not_there_cannot_be_revoked(folder: Path, identifier: str) -> None:
    run("invite", str(folder), "--quiet")
    with pytest.raises(
        UsageError, match=r"^no invitation has id .*; see: nomoat invite DIR --list"
    ):
        run("invite", str(folder), "--revoke", identifier)


def test_an_id_that_begins_two_invitations_revokes_neither(folder: Path) -> None:
    registrar = OpenCommunity.open(folder).registrar
    for number in range(2):
        claims = Claims("h:1", bytes(32), registrar.key.public, b"\1" * 15 + bytes([number]), 1, 9)
        registrar.invite(claims)
    with pytest.raises(UsageError, match="more than one"):
        run("invite", str(folder), "--revoke", "0101")
    assert not any(issued.revoked for issued in registrar.database.invitations())
    run("invite", str(folder), "--revoke", ("01" * 15 + "00").upper())
    assert sorted(issued.revoked for issued in registrar.database.invitations()) == [False, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--expires", "soon"), "7d"),
        (("--expires", "9999w"), "at most a year"),
        (("--address", "elsewhere.example.org:1"), "certificate does not name"),
        (("--address", "nonsense"), "HOST:PORT"),
    ],
)
def test_a_wrong_option_says_what_to_write(
    folder: Path, options: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run("invite", str(folder), *options)


def test_volunteers_are_listed_held_approved_and_banned(folder: Path) -> None:
    link = run("invite", str(folder), "--uses", "2", "--quiet").stdout
    enrol(folder, "ada", 1, from_link(link).token())
    enrol(folder, "ben", 2, from_link(link).token())
    assert run("volunteers", str(folder), "hold", "ada", "--reason", "odd").exit_code == 0
    run("volunteers", str(folder), "ban", "ben", "--reason", "junk")
    rows = json.loads(run("volunteers", str(folder), "list", "--json").stdout)
    assert [(r["name"], r["standing"], r["reason"]) for r in rows] == [
        ("ada", "held", "odd"),
        ("ben", "banned", "junk"),
    ]
    assert "approved" in run("volunteers", str(folder), "approve", "ada").stdout
    assert "ada" in run("volunteers", str(folder)).stdout
    with pytest.raises(UsageError, match="no volunteer is called eve"):
        run("volunteers", str(folder), "ban", "eve")
    with pytest.raises(UsageError, match="changes nothing"):
        run("volunteers", str(folder), "ban", "ben")


def test_a_ban_may_take_back_the_invitation_it_came_by_and_says_who_else_did(folder: Path) -> None:
    link = run("invite", str(folder), "--uses", "3", "--quiet").stdout
    enrol(folder, "ada", 1, from_link(link).token())
    enrol(folder, "ben", 2, from_link(link).token())
    said = run("volunteers", str(folder), "ban", "ben", "--invitation").stdout
    rows = json.loads(run("invite", str(folder), "--list", "--json").stdout)
    assert [row["state"] for row in rows if row["id"] in said] == ["revoked"]
    assert "others came by it: ada" in said
    with pytest.raises(Refused, match="revoked"):
        enrol(folder, "eve", 3, from_link(link).token())


def test_versions_are_listed_shown_verified_and_rolled_back(folder: Path) -> None:
    where = ("--dir", str(folder))
    rows = json.loads(run("adapter", "list", "--json", *where).stdout)
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert json.loads(run("adapter", "show", "1", *where).stdout) == rows[1]
    assert json.loads(run("adapter", "verify", "--json", *where).stdout) == {
        "versions": 3,
        "ok": True,
    }
    run("adapter", "rollback", "0", *where)
    newest = json.loads(run("adapter", "show", *where).stdout)
    assert (newest["number"], newest["adapter"]) == (3, rows[0]["adapter"])
    (folder / "adapters" / f"{rows[1]['adapter']}.adapter").write_bytes(b"junk")
    with pytest.raises(NomoatError, match="backup"):
        run("adapter", "verify", *where)


def test_a_coordinator_that_is_up_is_told_to_go_back_and_does_when_no_round_is_under_way(
    folder: Path,
) -> None:
    community, where = OpenCommunity.open(folder), ("--dir", str(folder))
    with held(community.folder.up_lock, "taken"):
        with pytest.raises(NomoatError, match="is being opened; try again"):
            run("adapter", "rollback", "0", *where)
        (folder / "state.json").write_text(json.dumps({"pid": os.getpid()}))
        said = run("adapter", "rollback", "0", "--reason", "it forgot French", *where).output
        assert "goes back to version 0 when no round is under way" in said
        assert community.versions.get(None).version.number == 2
        heed(community, 9)
    version = community.versions.get(None).version
    assert (version.number, version.note) == (3, "rollback to version 0: it forgot French")
    run("adapter", "rollback", "0", *where)
    assert community.versions.get(None).version.number == 4


def under(folder: Path, **rounds: object) -> OpenCommunity:
    return OpenCommunity.open(folder, rounds=rounds)


def test_terms_that_members_would_refuse_are_refused_at_up_and_name_them(folder: Path) -> None:
    weak = {"secure": True, "allow_weak": True}
    under(folder, **weak, min_volunteers=4).keep_terms()
    token = from_link(run("invite", str(folder), "--uses", "9", "--quiet").stdout).token()
    enrol(folder, "ada", 1, token)
    under(folder, **weak, min_volunteers=5).keep_terms()  # stricter: ada has no objection
    enrol(folder, "ben", 2, token)
    with pytest.raises(UsageError, match=r"1 volunteers \(ben\) agreed to 5 participants or more"):
        under(folder, **weak, min_volunteers=4).keep_terms()
    with pytest.raises(UsageError, match=r"2 volunteers \(ada, ben\) agreed to"):
        under(folder, **weak, min_volunteers=3).keep_terms()
    with pytest.raises(UsageError, match="agreed to secure = true"):
        under(folder, secure=False, min_volunteers=5).keep_terms()
    run("volunteers", str(folder), "remove", "ben")
    under(folder, **weak, min_volunteers=4).keep_terms()
    enrol(folder, "cyd", 3, token)
    under(folder, secure=True, min_volunteers=9).keep_terms()
    under(folder, **weak, min_volunteers=4).keep_terms()  # nobody joined under nine


def test_up_does_not_start_under_terms_that_members_would_refuse(folder: Path) -> None:
    under(folder).keep_terms()
    token = from_link(run("invite", str(folder), "--quiet").stdout).token()
    enrol(folder, "ada", 1, token)
    up = [sys.executable, "-P", "-m", "nomoat", "up", str(folder), "--port", "1"]
    environment = os.environ | {"NOMOAT_ROUNDS__ALLOW_WEAK": "true"}
    done = subprocess.run(
        up, capture_output=True, env=environment, check=False, text=True, timeout=60
    )
    assert done.returncode == UsageError.exit_code
    (line,) = done.stderr.splitlines()
    assert "1 volunteers (ada) agreed to 8 participants or more" in line


def test_damaged_notes_of_terms_are_one_line(folder: Path) -> None:
    community = under(folder)
    community.keep_terms()
    for junk in (b"", b"[]", b'{"announced": 1, "members": {}}'):
        community.folder.agreed.write_bytes(junk)
        with pytest.raises(NomoatError, match=r"agreed.json is damaged"):
            community.keep_terms()


@pytest.mark.parametrize(
    "command", [("up",), ("invite",), ("volunteers",)], ids=lambda command: str(command[0])
)
def test_a_folder_that_is_no_community_is_one_line(tmp_path: Path, command: Any) -> None:
    with pytest.raises(UsageError, match="nomoat init"):
        run(*command, str(tmp_path))


def test_the_folder_is_the_first_argument_or_dir_and_else_the_present_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ((str(folder),), ("--dir", str(folder)), (f"--dir={folder}",)):
        assert run("invite", *where, "--quiet").stdout.startswith("nomoat://")
    token = from_link(run("invite", str(folder), "--quiet").stdout).token()
    enrol(folder, "ada", 1, token)
    monkeypatch.chdir(folder)
    for where in ((), ("--dir", str(folder))):
        assert "ada" in run("volunteers", *where).stdout
        assert "ada" in run("volunteers", "list", *where).stdout
        assert run("invite", "--quiet", *where).stdout.startswith("nomoat://")
        assert "town is not up" in run("status", *where).stdout
    assert "ada is held" in run("volunteers", "hold", "ada", "--dir", str(folder)).stdout
    assert "town is not up" in run("down").stderr


def test_status_says_who_is_there_and_what_a_round_waits_for(folder: Path) -> None:
    token = from_link(run("invite", str(folder), "--uses", "3", "--quiet").stdout).token()
    for number, name in enumerate(("ada", "ben", "cyd"), 1):
        enrol(folder, name, number, token)
    state = {
        "pid": os.getpid(), "port": 1, "round": 3, "phase": "waiting for volunteers",
        "answered": 1, "asked": 3, "online": ["ada", "ben"], "paused": ["ben"],
        "seen": {"ada": 100, "ben": 90}, "at": 100,
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    with held(Folder(folder).up_lock, "up"):
        shown = run("status", str(folder)).stdout
        told = json.loads(run("status", str(folder), "--json").stdout)
    assert "round 3 of 100: waiting for volunteers (1 of 3)" in shown
    assert "2 more volunteers needed: ben is paused; cyd is away" in shown
    assert "nomoat adapter export NEW_FOLDER --dir" in shown
    rows = {row["name"]: row for row in told["members"]}
    assert (rows["ada"]["presence"], rows["ada"]["rounds"], rows["ada"]["last"]) == ("here", 2, 2)
    assert (rows["cyd"]["presence"], rows["cyd"]["seen"]) == ("away", None)
    assert "is not up: nomoat up" in run("status", str(folder)).stdout


def test_a_table_that_is_piped_is_plain_and_whole(folder: Path) -> None:
    shown = run("adapter", "list", "--dir", str(folder)).stdout
    assert shown.splitlines()[0].split()[:2] == ["version", "round"]
    assert not set("┏━┃│") & set(shown)


def test_a_weak_community_has_to_be_asked_for(tmp_path: Path) -> None:
    from nomoat.simulations.pocket import MODEL_DIR

    options = ("--name", "x", "--base", str(MODEL_DIR), "--min-volunteers", "3")
    with pytest.raises(UsageError, match="--allow-weak"):
        run("init", str(tmp_path / "c"), *options)
    assert not (tmp_path / "c").exists()


def test_evidence_is_recomputed_and_an_appeal_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nomoat.aggregation.protocol.history.appeal import Appeal
    from nomoat.aggregation.protocol.roster import Event
    from nomoat.aggregation.secagg.audit.evidence import to_bytes
    from nomoat.server.conduct.cases import Cases
    from tests.aggregation.secagg.audit.liars import session
    from tests.aggregation.secagg.conftest import Federation

    made = session(Federation, {3}, size=400)
    made.run()
    data = to_bytes(made.server.proofs[made.ids[3]])
    community = OpenCommunity.open(folder)
    claims = Claims("localhost:1", bytes(32), community.registrar.key.public, bytes(16), 9, 2**39)
    enrol(folder, "ada", 1, community.registrar.invite(claims).token())
    cases = Cases(community.registrar.database)
    cases.keep("ada", 3, data, 100)
    cases.keep("ada", 4, b"no evidence", 100)
    community.registrar.order("ada", Event.HOLD, "too large", 100)
    cases.hear(community.registrar, SigningKey(bytes([2]) * 32).public, Appeal("not me"), 100)
    shown = run("volunteers", str(folder), "evidence", "ada").output
    assert "ada is held: too large" in shown
    assert f"recomputed here: {made.server.blamed[made.ids[3]]}" in shown
    assert "DOES NOT HOLD" in shown
    assert "appeal of 1970-01-01 00:01 UTC: not me" in shown
    out = tmp_path / "out"
    told = run("volunteers", str(folder), "evidence", "ada", "--json", "--out", str(out))
    found = json.loads(told.stdout)
    assert [each["holds"] for each in found["evidence"]] == [True, False]
    assert (out / f"{found['evidence'][0]['digest']}.evidence").read_bytes() == data
    with pytest.raises(UsageError, match="no volunteer is called"):
        run("volunteers", str(folder), "evidence", "bob")


def test_a_card_says_how_large_updates_may_have_been_and_what_is_not_covered(folder: Path) -> None:
    from nomoat.server.community.opened import card
    from nomoat.server.rounds.records import RoundRecord

    community = OpenCommunity.open(folder)
    record = community.versions.get(2)
    assert "- sizes of updates: not bounded" in card(community, record)
    bounded = RoundRecord(2, True, "", norm_bound=0.9312, excluded=2)
    community.registrar.database.put_round(2, True, json.dumps(bounded.as_json()), b"")
    told = card(community, record)
    assert "- norm-bounded: 0.931 (not audited: honest software keeps to it)" in told
    assert "- gates passed: held-out loss of the volunteers; not covered: a patient" in told
    assert "no differential privacy" in told
    rounds = community.settings.rounds.model_copy(update={"audit": True})
    settings = community.settings.model_copy(update={"rounds": rounds})
    audited = replace(community, settings=settings)
    assert "- norm-bounded: 0.931 (audited, excluded: 2)" in card(audited, record)
    assert audited.privacy_terms().audit_words == 64
    assert community.privacy_terms().audit_words == 0
