"""A base model and its adapter: files, shape, the slot an adapter is put into.

No data rows and no optimiser.
"""
