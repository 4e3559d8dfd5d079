"""What the suite relies on of its own tools."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("run")
def test_tests_of_one_group_share_a_worker(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs every test: there are no groups")
    # pytest-xdist puts the group there; a version of pytest that drops it makes every worker
    # train the shared run, unsaid.
    assert request.node.nodeid.endswith("@run")
