"""Whole runs of benchmarks are for who asks for them: `make bench-check`."""

from __future__ import annotations

import os

import pytest

WHOLE = "NOMOAT_WHOLE_BENCHMARKS"
RUN_WHOLE = ("test_deployment.py", "test_kernels.py", "test_simulate.py", "test_volunteer.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(WHOLE):
        return
    for item in items:
        if item.path.parent.name == "benchmarks" and item.path.name in RUN_WHOLE:
            item.add_marker(pytest.mark.skip(reason=f"minutes: make bench-check ({WHOLE}=1)"))
