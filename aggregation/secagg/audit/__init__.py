"""The audit of norms under masks: sketches that are linear, what they show, and their slow twin.

Pure functions of keys and bytes; when they are asked for and sent is the sessions' business.
"""
