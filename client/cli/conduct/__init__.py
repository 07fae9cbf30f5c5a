"""Commands of a volunteer about what its community holds against somebody, itself included.

No decisions: what evidence shows is aggregation/secagg/audit/evidence.py's.
"""
