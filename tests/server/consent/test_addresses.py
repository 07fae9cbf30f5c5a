"""Members are told of a community's addresses, dated anew whenever they change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from nomoat.aggregation.protocol.community.addresses import check
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.consent.addresses import FILE, stated

KEY = SigningKey(b"\7" * 32)


def community(root: Path, address: str, *also: str) -> Any:
    return cast(
        Any,
        SimpleNamespace(
            folder=SimpleNamespace(root=root),
            registrar=SimpleNamespace(key=KEY),
            settings=SimpleNamespace(server=SimpleNamespace(address=address, also=also)),
        ),
    )


def test_a_date_stands_until_the_addresses_change_and_never_goes_back(tmp_path: Path) -> None:
    first = stated(community(tmp_path, "Old.example.org:8443"), 100)
    assert first.places == ("old.example.org:8443",)
    assert check(first, KEY.public) == first
    assert stated(community(tmp_path, "old.example.org:8443"), 200) == first
    both = stated(community(tmp_path, "old.example.org:8443", "new.example.org:1"), 300)
    assert (both.at, both.places) == (300, ("old.example.org:8443", "new.example.org:1"))
    behind = stated(community(tmp_path, "new.example.org:1", "new.example.org:1"), 50)
    assert (behind.at, behind.places) == (301, ("new.example.org:1",))


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    made = community(tmp_path, "old.example.org:8443")
    stated(made, 100)
    (tmp_path / FILE).write_bytes(b"\0" * 40)
    assert stated(made, 200).at == 200
