"""A volunteer's page: what `nomoat status`, `sent`, `credit` and `logs` say, and their orders.

It reads the files that a volunteer keeps, and works as well while none runs.
"""
