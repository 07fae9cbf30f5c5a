"""Differential privacy as numbers: what a noise comes to over sums, and which noise a goal needs.

Pure mathematics; how noise gets into a masked sum is aggregation/secagg/noise.
"""
