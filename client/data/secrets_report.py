"""Rows that look secret, as shown before training."""

from __future__ import annotations

from collections import Counter

from nomoat.client.data.secrets_scan import Allowlist, Scan

SHOWN = 10


def render_scan(scan: Scan, allowlist: Allowlist) -> str:
    """Say what was found, what is left out, and how to keep it on purpose."""
    if not scan.findings:
        return f"{scan.rows} rows: nothing looks like a key, a password, an address or a card"
    excluded = scan.excluded(allowlist)
    kinds = Counter(finding.kind for finding in scan.findings)
    lines = [", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())]
    for finding in scan.findings[:SHOWN]:
        fate = "kept" if finding.origin not in excluded else "left out"
        lines.append(f"  {finding.origin}: {finding.kind} {finding.shown}: {fate} ({finding.mark})")
    if len(scan.findings) > SHOWN:
        lines.append(f"  and {len(scan.findings) - SHOWN} more")
    lines.append(f"{len(excluded)} of {scan.rows} rows are left out of training")
    lines.append("keep some on purpose: nomoat data keep MARK… | --kind KIND | --row FILE:LINE")
    return "\n".join(lines)
