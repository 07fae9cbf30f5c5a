"""Rivals put beside nomoat, and the measuring of whole processes."""
