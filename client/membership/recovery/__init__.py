"""A restored community asks for what its members still hold; the volunteer's side (§6.6)."""
