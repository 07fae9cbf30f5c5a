"""What is wrong with this machine's taking part, and the one command that mends it.

Looks, and changes nothing.
"""
