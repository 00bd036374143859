# SPDX-License-Identifier: Apache-2.0
"""Real evidence made by real hardware, beside the project and never in it."""

import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("COCOS_VECTORS") or Path(__file__).resolve().parents[4] / "shared" / "vectors"
)


def vector(name: str) -> bytes:
    """Return a file of the vectors; without it the test is skipped, in CI it fails."""
    path = FOLDER / name
    if path.is_file():
        return path.read_bytes()
    reason = f"there is no {name} in {FOLDER} (set COCOS_VECTORS)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
