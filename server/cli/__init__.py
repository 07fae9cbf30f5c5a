"""The commands of a coordinator.

Arguments in, one call, text out; no decision of the product is taken here.
"""
