"""Secure aggregation: the coordinator learns the sum of a session's updates and no addend.

Both sides' sans-I/O machines and what they share: messages, thresholds, transcript, certificate.
No randomness, clock or transport of its own; docs/protocol.md §10 to §18 is what it enacts.
"""
