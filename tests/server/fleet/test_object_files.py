"""Objects under way: whole or absent, large ones on disk, gone when nobody refers to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.object_store import NoObjectInStoreError

from nomoat.server.fleet.flower_server import ObjectTree
from nomoat.server.fleet.object_files import LARGE_BYTES, ObjectFiles

RUN = 7


@pytest.fixture
def spool(tmp_path: Path) -> ObjectFiles:
    return ObjectFiles(tmp_path / "objects")


def message(body: bytes, head: bytes = b"head") -> RecordDict:
    return RecordDict(
        {"head": ConfigRecord({"bytes": head}), "body": ConfigRecord({"bytes": body})}
    )


def keep(spool: ObjectFiles, sent: RecordDict) -> dict[str, bytes]:
    spool.preregister(RUN, get_object_tree(sent))
    objects: dict[str, InflatableObject] = get_all_nested_objects(sent)
    contents = {object_id: found.deflate() for object_id, found in objects.items()}
    for object_id, content in contents.items():
        spool.put(object_id, content)
    return contents


def files(spool_of: Path) -> int:
    return len(list((spool_of / "objects").iterdir()))


def test_what_was_put_comes_back_and_only_large_contents_are_files(
    spool: ObjectFiles, tmp_path: Path
) -> None:
    contents = keep(spool, message(bytes(LARGE_BYTES)))
    assert {object_id: spool.get(object_id) for object_id in contents} == contents
    assert files(tmp_path) == 1
    kept = sum(len(entry.content) for entry in spool.store.values())
    assert kept < LARGE_BYTES / 10  # the large one costs no memory


def test_an_announced_object_is_empty_and_an_unknown_one_is_none(spool: ObjectFiles) -> None:
    tree = get_object_tree(message(b"x"))
    spool.preregister(RUN, tree)
    assert spool.get(tree.object_id) == b""
    assert spool.get("0" * 64) is None


def test_a_message_is_whole_when_its_last_object_is_here(spool: ObjectFiles) -> None:
    sent = message(b"body")
    spool.preregister(RUN, get_object_tree(sent))
    assert not spool.whole(sent.object_id)
    contents = [(i, found.deflate()) for i, found in get_all_nested_objects(sent).items()]
    for object_id, content in contents[:-1]:
        spool.put(object_id, content)
        assert not spool.whole(sent.object_id)
    spool.put(*contents[-1])
    assert spool.whole(sent.object_id)


def test_a_content_that_is_not_what_its_name_says_is_refused(
    spool: ObjectFiles, tmp_path: Path
) -> None:
    tree = get_object_tree(message(b"x"))
    spool.preregister(RUN, tree)
    with pytest.raises(ValueError, match="does not match"):
        spool.put(tree.object_id, bytes(LARGE_BYTES))
    stranger = ConfigRecord({"bytes": bytes(LARGE_BYTES)})
    with pytest.raises(NoObjectInStoreError):
        spool.put(stranger.object_id, stranger.deflate())
    assert files(tmp_path) == 0


def test_a_body_two_messages_share_stays_until_both_are_deleted(
    spool: ObjectFiles, tmp_path: Path
) -> None:
    first, second = message(bytes(LARGE_BYTES), b"1"), message(bytes(LARGE_BYTES), b"2")
    contents = keep(spool, first) | keep(spool, second)
    assert files(tmp_path) == 1
    spool.delete(first.object_id)
    body = max(contents.values(), key=len)
    assert body in [spool.get(object_id) for object_id in contents]
    spool.delete(second.object_id)
    assert len(spool) == files(tmp_path) == 0


def test_what_an_earlier_process_left_is_gone(tmp_path: Path) -> None:
    keep(ObjectFiles(tmp_path / "objects"), message(bytes(LARGE_BYTES)))
    again = ObjectFiles(tmp_path / "objects")
    assert len(again) == files(tmp_path) == 0
    keep(again, message(bytes(LARGE_BYTES)))
    again.clear()
    assert len(again) == files(tmp_path) == 0


def test_without_room_for_a_file_the_content_stays_in_memory(
    spool: ObjectFiles, tmp_path: Path
) -> None:
    (tmp_path / "objects").rmdir()
    contents = keep(spool, message(bytes(LARGE_BYTES)))
    assert {object_id: spool.get(object_id) for object_id in contents} == contents


@pytest.mark.parametrize("name", ["../canary", "{folder}/canary", "canary", "", "..", "A" * 64])
def test_an_id_that_is_no_digest_never_becomes_a_path(
    spool: ObjectFiles, tmp_path: Path, name: str
) -> None:
    canary, inside = tmp_path / "canary", tmp_path / "objects" / "canary"
    for file in (canary, inside):
        file.write_text("still here")
    chosen = name.format(folder=tmp_path)
    spool.delete(chosen)
    assert spool.get(chosen) is None
    assert not spool.whole(chosen)
    with pytest.raises(ValueError, match="64 hexadecimal"):
        spool.preregister(RUN, ObjectTree(object_id=chosen))
    assert canary.read_text() == inside.read_text() == "still here"


def test_a_tree_deeper_than_a_message_is_refused_and_announces_nothing(spool: ObjectFiles) -> None:
    tree = ObjectTree(object_id=f"{0:064x}")
    for number in range(1, 4):
        tree = ObjectTree(object_id=f"{number:064x}", children=[tree, tree])
    with pytest.raises(ValueError, match="deep"):
        spool.preregister(RUN, tree)
    assert len(spool) == 0


def test_a_tree_cannot_be_made_deep_by_several_announcements(spool: ObjectFiles) -> None:
    low = ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64)])
    spool.preregister(RUN, low)
    middle = ObjectTree(object_id="c" * 64, children=[ObjectTree(object_id="a" * 64)])
    spool.preregister(RUN, middle)
    with pytest.raises(ValueError, match="deep"):
        spool.preregister(
            RUN, ObjectTree(object_id="d" * 64, children=[ObjectTree(object_id="c" * 64)])
        )
    spool.delete("c" * 64)
    assert len(spool) == 0  # nothing of what was refused is left


def test_an_object_announced_again_with_other_parts_gets_none_of_them(spool: ObjectFiles) -> None:
    def tree(*parts: str) -> ObjectTree:
        return ObjectTree(
            object_id="a" * 64, children=[ObjectTree(object_id=p * 64) for p in parts]
        )

    assert set(spool.preregister(RUN, tree("b"))) == {"a" * 64, "b" * 64}
    for part in "cdef":
        assert set(spool.preregister(RUN, tree(part))) == {"a" * 64, "b" * 64}
    assert len(spool) == 2
    spool.delete("a" * 64)
    assert len(spool) == 0
