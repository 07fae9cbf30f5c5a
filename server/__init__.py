"""The coordinator: opens rounds, aggregates reports, keeps the adapter history."""
