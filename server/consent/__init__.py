"""Terms a community announces, and which of them each member agreed to: agreed.json; addresses.

What a volunteer makes of them is its own affair; rounds and the port live elsewhere.
"""
