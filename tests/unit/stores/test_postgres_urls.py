# SPDX-License-Identifier: Apache-2.0
"""URLs of PostgreSQL that would make the driver go where we did not look."""

from typing import Any

import pytest

from cocos.errors import ConfigError
from cocos.stores.postgres import PostgresDatabase


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.test/kbs?host=/var/run/postgresql",
        "postgresql://db.test/kbs?host=localhost",
        "postgresql://:5432/kbs?host=localhost",
        "postgresql:///kbs?service=elsewhere",
    ],
)
async def test_a_url_that_names_two_servers_is_refused(url: str) -> None:
    async def prepare(*_: Any, **__: Any) -> None:
        pytest.fail("connects")

    with pytest.raises(ConfigError, match="more than one place"):
        await PostgresDatabase.open(url, prepare)


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("postgresql:///kbs?host=/run/postgresql", False),
        ("postgresql://u@/kbs?host=/run/postgresql", False),
        ("postgresql://u:p@localhost/kbs", False),
        ("postgresql://u:p@db.test@localhost/kbs", True),
        ("postgresql://u@localhost,db.test/kbs", True),
    ],
)
async def test_over_the_network_the_certificate_is_checked(url: str, checked: bool) -> None:
    async def prepare(*_: Any, **arguments: Any) -> None:
        assert arguments.get("ssl", False) is checked
        raise OSError("enough")

    with pytest.raises(ConfigError, match="does not answer"):
        await PostgresDatabase.open(url, prepare)
