"""Methods that need every volunteer's update by itself: they exclude secure aggregation.

One method a file, each a PlaintextMethod of base.py, and what they share: stacked modules.
"""
