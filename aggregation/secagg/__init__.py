"""Secure aggregation: the coordinator learns the sum and nothing else."""
