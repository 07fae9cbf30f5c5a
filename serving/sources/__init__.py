"""Adapters by the names people use (community@12, personal), wherever they lie on this machine.

Reads runs, communities, memberships and PEFT folders; writes nothing and loads no model.
"""
