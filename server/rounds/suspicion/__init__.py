"""Who may be spoiling sums: what abandoned and accepted rounds say of their participants.

Pure: rounds that have ended go in, probabilities and cohorts come out; nobody is banned here.
"""
