"""Rounds: phases, exchanges, cohorts, acceptance, learning rates.

Messages and time in, messages out; no network peer and no file is met here.
"""
