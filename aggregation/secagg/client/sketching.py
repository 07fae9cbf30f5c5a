"""A volunteer between R2 and R3, where the session audits norms: sketches of its masks (§20).

Stage and message in, next stage and reply out. The seed is the one that was committed to in the
offer, so it was fixed before any vector was masked; a session has one, and is answered once.
"""

from __future__ import annotations

from dataclasses import replace

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_keystreams
from nomoat.aggregation.secagg.audit.terms import commit
from nomoat.aggregation.secagg.client.stages import Masked, Reply, lie
from nomoat.aggregation.secagg.messages import AuditOpening, SketchReport

OWN = -1  # beside the indices of neighbours


def on_audit(stage: Masked, opening: AuditOpening) -> Reply:
    """Answer with the sketches of the self mask and of every pair mask, signed (§20.4)."""
    session, keys = stage.session, stage.audit
    if keys is None:
        raise lie("§20.2", "the session was not to be audited")
    if commit(opening.seed) != session.offer.audit_commit:
        raise lie("§20.2", "the audit's seed is not the one that was committed to")
    signs = Signs(opening.seed, session.transcript)
    found = sketch_keystreams(signs, {OWN: keys.own, **keys.pairs}, keys.length)
    own = found.pop(OWN).astype("<u4").tobytes()
    pairs = b"".join(found[i].astype("<u4").tobytes() for i in sorted(found))
    signed = (session.transcript, stage.shared, own, pairs)
    report = SketchReport(own, pairs, session.identity.sign(labels.SIGN_SKETCH, *signed))
    return Reply(replace(stage, audit=None), report, (session.mark("sketched"),))
