"""What the benchmarks put beside nomoat, and how whole processes are measured."""
