"""Training for rounds on this machine: the trainer, the worker shared by communities, memory.

Nothing here talks to a coordinator.
"""
