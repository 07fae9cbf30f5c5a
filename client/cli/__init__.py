"""The commands of a volunteer.

Arguments in, one call, text out; no decision of the product is taken here.
"""
