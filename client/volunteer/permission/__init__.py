"""Permission for work on this machine, beside the rules of rounds: the owner's limits, and terms.

What a task may ask for is client/round's; here is only whether anything may begin at all.
"""
