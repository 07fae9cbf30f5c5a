"""Where bases come from: made of a GGUF file, fetched as a package, or held by this process already.

Makes folders in the cache; opens nothing but what its caller named.
"""
