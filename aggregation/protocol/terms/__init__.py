"""Terms that a community signs and a volunteer agrees to on joining, beside those of the work.

No decisions: what is refused for them is the volunteer's (client/membership, aggregation/secagg).
"""
