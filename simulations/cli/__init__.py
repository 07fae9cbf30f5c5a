"""The commands of a researcher.

Arguments in, one call, text out.
"""
