"""Whole federations on one machine, by the very same code."""
