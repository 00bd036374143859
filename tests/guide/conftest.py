# SPDX-License-Identifier: Apache-2.0
"""The guide's ports are fixed: of all test runs on this machine, one uses them at a time."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def guide_ports() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"cocos-guide-ports-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
