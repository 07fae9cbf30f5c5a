"""Processes that train: the pool, the worker, the jobs between them.

What a job computes is decided in lora/training.
"""
