"""The two sides of benchmarks/secagg.py, and what is measured of them."""
