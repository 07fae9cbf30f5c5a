"""An upload is paid object by object, to its own run, and ends when it owes nothing."""

from __future__ import annotations

import pytest

from nomoat.server.fleet.pending_uploads import PendingUploads

RUN = 3


def test_an_upload_owes_what_it_announced_until_each_object_is_here() -> None:
    uploads = PendingUploads()
    session = uploads.begin(RUN)
    uploads.owe(session, ["a", "b"])
    assert uploads.owes(RUN, session, "a")
    assert not uploads.owes(RUN, session, "c")
    assert not uploads.owes(RUN + 1, session, "a")
    assert not uploads.owes(RUN, "another", "a")
    uploads.settle(session, "a")
    assert not uploads.owes(RUN, session, "a")
    assert uploads.owes(RUN, session, "b")
    uploads.settle(session, "b")
    assert len(uploads) == 0
    with pytest.raises(ValueError, match="no such upload"):
        uploads.run_of(session)


def test_an_upload_of_what_is_here_already_is_over_at_once() -> None:
    uploads = PendingUploads()
    uploads.owe(uploads.begin(RUN), [])
    assert len(uploads) == 0


def test_a_flood_of_uploads_forgets_the_oldest() -> None:
    uploads = PendingUploads(max_open=2)
    sessions = [uploads.begin(RUN) for _ in range(3)]
    assert len(uploads) == 2
    with pytest.raises(ValueError, match="no such upload"):
        uploads.run_of(sessions[0])


def test_a_run_that_ends_takes_its_uploads_along() -> None:
    uploads = PendingUploads()
    mine, other = uploads.begin(RUN), uploads.begin(RUN + 1)
    uploads.end_run(RUN)
    with pytest.raises(ValueError, match="no such upload"):
        uploads.run_of(mine)
    assert uploads.run_of(other) == RUN + 1
