"""Noise inside a masked sum: how much each volunteer adds, and how it is drawn (protocol §21).

No accounting: what it comes to is aggregation/privacy.
"""
