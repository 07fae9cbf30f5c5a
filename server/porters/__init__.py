"""Port processes: several that end TLS and hold connections, before the one that runs rounds.

A porter has no state of its own and decides nothing about rounds (docs/adr/0032-port-processes.md).
"""
