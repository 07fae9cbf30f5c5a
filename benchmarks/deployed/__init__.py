"""The parts of benchmarks/deployment.py: a real community on loopback, and what is read off it."""
