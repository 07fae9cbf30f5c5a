"""A community's keys, one after the other: kept, changed, and told (protocol §5.9)."""
