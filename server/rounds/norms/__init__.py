"""The bound on the norm of volunteers' updates: a setting, or learned from a training of one's own.

What is done with a bound is aggregation's and the exchanges' business.
"""
