"""Statements of a community to its members while it runs: who is there, which terms hold now.

Pure, like all of aggregation. Its description for strangers is in enrolment.py.
"""
