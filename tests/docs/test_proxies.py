"""Configurations of the proxies are ones that the proxies take."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nomoat.server.community.certificates import make_authority

PROXIES = Path(__file__).parents[2] / "deploy" / "proxies"


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs Caddy")
@pytest.mark.parametrize("name", sorted(path.name for path in PROXIES.glob("Caddyfile*")))
def test_caddy_takes_its_configurations(name: str, tmp_path: Path) -> None:
    authority = make_authority("Town", datetime.now(UTC))
    for folder in ("town/certificates", "town/keys"):
        (tmp_path / folder).mkdir(parents=True)
    for place in ("town/certificates/authority.pem", "authority.pem"):
        (tmp_path / place).write_bytes(authority.certificate)
    (tmp_path / "town/keys/authority.key").write_bytes(authority.key)
    text = (PROXIES / name).read_text("utf-8")
    (tmp_path / name).write_text(text.replace("/srv/nomoat", str(tmp_path)), "utf-8")
    done = subprocess.run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", name],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
