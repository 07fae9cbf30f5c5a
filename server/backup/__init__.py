"""A community as one file: made while it is up, and brought back where there is none.

What volunteers are told of it is aggregation/protocol/history/restoration.py's.
"""
