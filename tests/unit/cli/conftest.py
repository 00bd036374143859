# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command sends all logs to its standard error, which ends with the test."""
    yield
    structlog.reset_defaults()
