"""Masks and the secrets behind them: key agreement, keystreams, secret sharing, taking masks off.

Primitives alone: no message is checked and no phase is known here.
"""
