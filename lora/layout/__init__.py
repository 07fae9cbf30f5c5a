"""A base laid out over a machine that cannot hold it whole on one GPU: which part lies where.

The rule is arithmetic that the planner and the worker both do; placing needs torch.
"""
