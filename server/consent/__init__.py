"""Terms a community announces, and which of them each of its members agreed to: agreed.json.

What a volunteer makes of them is its own affair; rounds and the port live elsewhere.
"""
