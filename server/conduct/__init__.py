"""Conduct: who broke the protocol or keeps others waiting, noted over rounds, and what follows.

Decisions here are about membership alone; nothing changes how a round in progress goes on.
"""
