"""What all tests share: which tests need the sandbox, and when they are skipped."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip sandbox tests under SANDBOX=none; without bubblewrap they fail, not skip."""
    if os.environ.get("CUVEE_TEST_SANDBOX") == "none":
        skip = pytest.mark.skip(reason="SANDBOX=none: needs bubblewrap")
        for item in items:
            if item.get_closest_marker("sandbox"):
                item.add_marker(skip)
