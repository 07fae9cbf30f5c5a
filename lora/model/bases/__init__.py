"""Bases that have to be made before they are a folder like any other: of a GGUF file, of a package.

Makes folders in the cache; holds no model, and opens nothing but what its caller named.
"""
