"""Robust means of vectors that can be seen: some of them may be lies. Pure; for plain rounds alone.

No mean helps under masks, where nobody sees a single vector.
"""
