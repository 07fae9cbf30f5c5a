"""Looked at daily while a community is up: its promises against its folder, its certificate's end.

The promises are read only: what can be mended is when the coordinator starts.
"""
