"""Attacks on the port of a coordinator that is at work: connections, strangers, enrolled members.

Each attack is a function that goes on until its Attack is over. No measuring here: hostile.py does.
"""
