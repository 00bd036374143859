# SPDX-License-Identifier: Apache-2.0
"""Real tools for the tests: Skopeo and a registry, PostgreSQL and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import databases
import pytest
from _databases import Postgres, in_a_thread
from _programs import docker_registry
from hypothesis import HealthCheck, settings

from cocos.host.images import skopeo
from cocos.host.images.skopeo import Skopeo

# How long an example takes says how busy the machine is.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

DATABASES: Final = {"postgres", "valkey"}
PROGRAMS: Final = {"agent", "guest", "kbs_client", "manager", "owner"}
"""Folders of ``integration`` whose tests start our programs, an interpreter each, many times."""
LONGEST_FIRST: Final = ("vm", "database", "integration")
"""Markers: two workers that begin with the long tests end at the same time."""

MOST_BYTES_IN_A_NAME: Final = 16


@pytest.hookimpl(tryfirst=True)  # xdist makes its groups of what it finds then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a database; put the tests in order; have nothing set up by both workers."""
    for item in items:
        if DATABASES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("database")
            item.add_marker(pytest.mark.xdist_group("database"))
        elif _shares_with_its_module(item) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
        if item.path.parent.parent.name == "integration" and item.path.parent.name in PROGRAMS:
            item.add_marker("programs")
    items.sort(key=_place)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their argument, with a number: made at random they differ by worker."""
    return argname if isinstance(val, bytes) and len(val) > MOST_BYTES_IN_A_NAME else None


def _shares_with_its_module(item: pytest.Item) -> bool:
    """Tell whether a test uses a fixture that is made once for all tests of its module."""
    found = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    return any(each.scope == "module" for fixtures in found.values() for each in fixtures)


def _place(item: pytest.Item) -> int:
    marks = [number for number, name in enumerate(LONGEST_FIRST) if item.get_closest_marker(name)]
    return min(marks, default=len(LONGEST_FIRST))


@pytest.fixture(scope="session")
def tool() -> Skopeo:
    """A Skopeo that knows key providers, installed into the cache if there is none."""
    return asyncio.run(skopeo.install())


@pytest.fixture
async def registry(tool: Skopeo, tmp_path: Path) -> AsyncIterator[str]:
    """``localhost:PORT`` of an empty registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    async with docker_registry(await skopeo.find_registry(), folder) as address:
        yield address


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL that many tests share; each makes a database of its own."""
    # No test asks what survives the machine's crash.
    server = databases.postgres(tmp_path_factory.mktemp("postgres"), "fsync=off")
    with in_a_thread(server) as running:
        yield Postgres(running)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey that many tests share; their sessions have random ids."""
    with in_a_thread(databases.valkey(tmp_path_factory.mktemp("valkey"))) as running:
        yield running.url
