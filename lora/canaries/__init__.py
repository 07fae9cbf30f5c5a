"""Canaries: planted phrases, and how well an adapter has come to know them; rows read one by one.

Pure but for row_losses.py, which needs the model; volunteers and coordinators measure alike.
"""
