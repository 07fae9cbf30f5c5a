"""One GPU's figures, part by part (../gpu.py): random models, our steps, and somebody else's.

Each part runs in a process of its own. No part reads a file that is not made here or in the tree.
"""
