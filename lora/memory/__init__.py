"""The memory that training takes, predicted, and the plan that makes it fit.

Arithmetic over shapes; nothing is loaded or allocated here.
"""
