"""The folder of the real data sets, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mirror():
    return Path(os.environ.get("MMSA_LIB_MIRROR") or pytest.skip("MMSA_LIB_MIRROR is not set"))
