"""Origins of bases: out of a GGUF file or a package, or held by this process already.

Makes folders in the cache; opens nothing but what its caller named.
"""
