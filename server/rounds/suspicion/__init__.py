"""Suspicion: abandoned and accepted rounds as evidence of who may be spoiling sums.

Pure: rounds that have ended go in, probabilities and cohorts come out; nobody is banned here.
"""
