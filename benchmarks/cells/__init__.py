"""The cells of benchmarks/methods.py: which there are, how one runs, what is made of them."""
