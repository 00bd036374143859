# SPDX-License-Identifier: Apache-2.0
"""Images for boot tests: built once per run, from inputs that stay in the cache."""

import asyncio
from pathlib import Path

import pytest

from cocos.image.build import build
from cocos.image.config import BuildSettings


@pytest.fixture(scope="session")
def debug_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a debug image."""
    folder = tmp_path_factory.mktemp("image") / "debug"
    asyncio.run(build(BuildSettings(output=folder, debug=True), lambda *_: None))
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an image as VMs of owners have it."""
    folder = tmp_path_factory.mktemp("image") / "image"
    asyncio.run(build(BuildSettings(output=folder), lambda *_: None))
    return folder
