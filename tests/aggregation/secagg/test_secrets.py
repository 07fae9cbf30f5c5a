"""Secrets stay in memory, are not printable or storable, and end with their use."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks import keys
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import Abandoned

PURPOSES = ("box_private", "mask_private", "self_seed", "coefficient_key", "rounding_key")


def secrets_of(made, i) -> list[bytes]:
    held = SessionSecrets(made.entropy[i])
    return [made.entropy[i], made.keys[i].raw(), *(getattr(held, name) for name in PURPOSES)]


def reachable(root: object) -> Iterator[bytes]:
    """Every bytes-like object that can be reached from `root` by references."""
    seen, todo = set(), [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        if isinstance(thing, bytes | bytearray):
            yield bytes(thing)
        elif (not callable(thing) and type(thing).__module__ != "builtins") or isinstance(
            thing, dict | list | tuple | set | frozenset
        ):
            todo.extend(gc.get_referents(thing))


def test_no_message_mark_or_representation_holds_a_secret(federation):
    made = federation(8, drops={"masked": {6}})
    texts: list[str] = []

    def watch(i: int, message: Any) -> Any:
        texts.append(repr(made.clients[i]) + repr(made.clients[i]._stage))
        return message

    made.up = dict.fromkeys(("keys", "shares", "checks", "masked", "signatures", "reveals"), watch)
    made.run()
    texts += [repr(made.marks), repr(made.server.blamed)]
    sent = b"".join(p.head + p.body for packets in made.sent.values() for p in packets)
    for i in range(8):
        for secret in secrets_of(made, i):
            assert secret not in sent
            assert not any(repr(secret)[2:-1] in text or secret.hex() in text for text in texts)


def test_representations_of_stages_do_not_hold_shares(running):
    made, _ = running("signatures")
    stage = made.clients[0]._stage
    text = repr(stage)
    for held in stage.held.values():
        assert repr(held.seed) not in text
        assert not held.key or repr(held.key) not in text


@pytest.mark.parametrize("ending", ["revealed", "abandoned", "refused", "stopped"])
def test_whatever_ends_a_session_leaves_no_secret_and_no_share_in_it(running, ending):
    made, step = running("reveals")
    session = made.clients[0]
    held = [
        share for pair in session._stage.masked.held.values() for share in (pair.seed, pair.key)
    ]
    found = list(reachable(session))
    assert any(share in found for share in held if share)  # the search itself works
    if ending == "revealed":
        session.receive(step.outgoing[made.ids[0]])
    elif ending == "abandoned":
        session.receive(Abandoned("for a test"))
    elif ending == "refused":
        with pytest.raises(Exception, match="sent SessionOffer"):
            session.receive(made.offer)
    else:
        session.stop()
    left = list(reachable(session))
    assert session.over
    for secret in [*secrets_of(made, 0)[2:], *held]:
        assert not secret or secret not in left


def test_own_secrets_are_erased_as_soon_as_the_masked_vector_is_made(running):
    made, step = running("masked")
    session = made.clients[0]
    before = list(reachable(session))
    assert SessionSecrets(made.entropy[0]).self_seed in before
    session.receive(step.outgoing[made.ids[0]])
    left = list(reachable(session))
    for secret in secrets_of(made, 0)[2:]:
        assert secret not in left
    assert not any(made.vectors[0] is thing for thing in gc.get_referents(session._stage))


def test_erased_secrets_cannot_be_used():
    secrets = SessionSecrets(bytes(32))
    held = list(secrets._held.values())
    secrets.erase()
    secrets.erase()
    assert all(buffer == bytes(32) for buffer in held)
    for name in PURPOSES:
        with pytest.raises(LocalProtocolError, match="are erased"):
            getattr(secrets, name)


def test_sessions_and_secrets_cannot_be_stored_or_copied(federation):
    made = federation(2)
    for thing in (made.clients[0], SessionSecrets(bytes(32))):
        for act in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(LocalProtocolError, match="never stored"):
                act(thing)


def test_all_secrets_of_a_session_differ_from_each_other_and_from_other_sessions():
    names = PURPOSES
    found = [getattr(SessionSecrets(bytes([i]) * 32), name) for i in range(3) for name in names]
    assert len(set(found)) == len(found)


def test_no_two_labels_are_the_same_and_none_begins_another():
    values = [v for k, v in vars(labels).items() if k.isupper() and isinstance(v, str | bytes)]
    texts = [v if isinstance(v, str) else v.decode() for v in values]
    assert len(texts) >= 18
    assert len(set(texts)) == len(texts)
    ended = [text + "\0" for text in texts]
    assert not any(a != b and a.startswith(b) for a in ended for b in ended)


def test_marks_hold_only_what_a_diary_needs(federation):
    made = federation(2)
    made.run()
    mark = made.marks[0][0]
    assert dataclasses.asdict(mark) == {
        "kind": "joined",
        "session": made.offer.session,
        "round": 3,
        "exchange": 1,
        "version": made.terms.adapter_hash,
        "adapter": made.terms.adapter_hash,
        "cohort": b"",
        "at": 0,
    }


def test_public_keys_do_not_hold_private_ones():
    secrets = SessionSecrets(b"\x09" * 32)
    assert keys.public_of(secrets.box_private) != secrets.box_private
