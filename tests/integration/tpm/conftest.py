# SPDX-License-Identifier: Apache-2.0
"""TPMs from a factory, and a key broker that trusts its owner."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from _boot import boot, reference_values
from _kbs import InProcessKbs, kbs_in_process
from _tpm import Tpm, TpmCa, running_tpm

from cocos._clock import system_clock
from cocos.wire.kbs.protocol import ResourcePath

KEY = ResourcePath.parse("default/key/algo")
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> TpmCa:
    return TpmCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def states(ca: TpmCa) -> list[Path]:
    """States of two TPMs that came from the factory."""

    async def make() -> list[Path]:
        return [await ca.manufacture(), await ca.manufacture()]

    return asyncio.run(make())


@pytest.fixture
def factory(states: list[Path], tmp_path: Path) -> Callable[[int], Path]:
    def new(number: int) -> Path:
        return Path(shutil.copytree(states[number], tmp_path / f"state{number}"))

    return new


@pytest.fixture
async def tpm(factory: Callable[[int], Path], tmp_path: Path) -> AsyncIterator[Tpm]:
    async with running_tpm(factory(0), tmp_path / "tpm") as found:
        yield found


@pytest.fixture
async def other(factory: Callable[[int], Path], tmp_path: Path) -> AsyncIterator[Tpm]:
    """Another TPM of the same manufacturer."""
    async with running_tpm(factory(1), tmp_path / "other") as found:
        yield found


@pytest.fixture
async def kbs(ca: TpmCa, states: list[Path], tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    """A key broker that trusts the manufacturer and knows the image."""
    folder = tmp_path / "kbs"
    folder.mkdir()
    async with kbs_in_process(folder, allow_sample=False, tpm_ek_ca=[ca.certificate]) as found:
        found.now = system_clock()
        async with found.admin() as admin:
            await admin.set_resource(KEY, SECRET)
            await admin.register_reference_values(reference_values(boot()))
        yield found
