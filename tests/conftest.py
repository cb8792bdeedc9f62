"""What all tests share: which need the sandbox and when they are skipped, and no deadlines."""

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes to make or to run says more of the machine than of the code.
settings.register_profile("cuvee", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cuvee")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip sandbox tests under SANDBOX=none; without bubblewrap they fail, not skip."""
    if os.environ.get("CUVEE_TEST_SANDBOX") == "none":
        skip = pytest.mark.skip(reason="SANDBOX=none: needs bubblewrap")
        for item in items:
            if item.get_closest_marker("sandbox"):
                item.add_marker(skip)
