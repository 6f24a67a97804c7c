"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with copies of the public prompt sets, where there is one."""
    folder = Path(os.environ.get("HARNESS_TEST_DATA", _BESIDE_THE_CHECKOUT))
    if not (folder / "advbench").is_dir():
        pytest.skip("no copies of the public prompt sets: name their folder with HARNESS_TEST_DATA")
    return folder
