# SPDX-License-Identifier: Apache-2.0
"""Images for boot tests: those of the cache, built when they are not of this source."""

import asyncio
from pathlib import Path

import pytest

from cocos.host.files import cache_folder
from cocos.image.build import build
from cocos.image.config import DEBUG_NAME, DEFAULT_NAME, BuildSettings


@pytest.fixture(scope="session")
def debug_image() -> Path:
    """Return the folder of a debug image."""
    return _built(DEBUG_NAME, debug=True)


@pytest.fixture(scope="session")
def image() -> Path:
    """Return the folder of an image as VMs of owners have it."""
    return _built(DEFAULT_NAME, debug=False)


def _built(name: str, *, debug: bool) -> Path:
    # Where the guide and the demo look, too: a build takes a minute.
    folder = cache_folder("image") / name
    asyncio.run(build(BuildSettings(output=folder, debug=debug), lambda *_: None))
    return folder
