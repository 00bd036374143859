# SPDX-License-Identifier: Apache-2.0
"""The example policies of docs/policies.md, each against real quotes: who gets the key.

Issue 3, point 6, and of "It must fail like this": a second algorithm with the same key
path, a dataset swapped, and a manifest swapped after measurement (a second one measured).
Point 7: what was measured and what was wanted is in the explanation.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _boot import (
    ALGORITHM,
    CMDLINE,
    DATASET,
    INIT_DATA,
    OTHER,
    boot,
    event_of,
    manifest,
    reference_values,
    start,
)
from _kbs import InProcessKbs, kbs_in_process
from _policies import documented
from _rcar import Handshake, denial
from _tpm import Tpm, TpmCa, runtime

from cocos._clock import system_clock
from cocos.wire.init_data import build
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

ALGO, DATA = "default/key/algo", "default/key/data"
SECRETS = {ALGO: b"a" * 32, DATA: b"d" * 32}


def computation(**changes: str) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


WANTED = computation()
SWAPPED = [computation(algorithm=OTHER), computation(dataset=OTHER), computation(key="a/b/c")]


@contextlib.asynccontextmanager
async def owner(ca: TpmCa, folder: Path, policy: str, *keys: str) -> AsyncIterator[InProcessKbs]:
    """A key broker of somebody who holds these keys and has this policy."""
    folder.mkdir()  # noqa: ASYNC240 - a moment
    async with kbs_in_process(folder, allow_sample=False, tpm_ek_ca=[ca.certificate]) as kbs:
        kbs.now = system_clock()
        async with kbs.admin() as admin:
            await admin.register_reference_values(reference_values(boot()))
            await admin.set_resource_policy(policy)
            for key in keys:
                await admin.set_resource(ResourcePath.parse(key), SECRETS[key])
        yield kbs


async def attested(kbs: InProcessKbs, tpm: Tpm, init_data: str = INIT_DATA) -> Handshake:
    guest = await Handshake.opened(kbs, tpm, tpm.params, init_data=init_data)
    answer = await guest.attest(await guest.evidence(cmdline=CMDLINE))
    assert answer.status_code == 200, answer.text
    return guest


async def gets(kbs: InProcessKbs, tpm: Tpm, key: str) -> bool:
    """Tell whether the machine gets a key; a denial must be explained."""
    guest = await attested(kbs, tpm)
    answer = await guest.get(key)
    if answer.status_code == 200:
        assert guest.key.decrypt(answer.json()) == SECRETS[key]
        return True
    findings = await denial(kbs, answer)
    assert "resource-policy" in findings
    if path := [each for each in findings if each.startswith("tpm.")]:
        assert findings[path[0]]["actual"] != findings[path[0]]["expected"]
    else:
        # It was not for what the machine is: this policy releases another key.
        said = findings["resource-policy"]["problem"]
        assert said.endswith(f"does not allow resource/{key}")
    return False


async def test_only_this_image(ca: TpmCa, tpm: Tpm, tmp_path: Path) -> None:
    values = reference_values(boot())
    other = reference_values(boot(kernel=b"another"))
    policy = documented("Only this image", PCR_11=values["tpm_pcr11"][0])
    strict = documented("Only this image", PCR_11=other["tpm_pcr11"][0])
    await start(tpm)
    async with owner(ca, tmp_path / "kbs", policy, ALGO) as kbs:
        assert await gets(kbs, tpm, ALGO)
        async with kbs.admin() as admin:
            # Both images are known to the KBS; this owner accepts the other one.
            await admin.register_reference_values(
                {"tpm_pcr11": values["tpm_pcr11"] + other["tpm_pcr11"]}
            )
            await admin.set_resource_policy(strict)
        assert not await gets(kbs, tpm, ALGO)


TOLD_KBS = "http://10.0.2.2:8080"
TOLD = {
    "aa.toml": f'[token_configs.kbs]\nurl = "{TOLD_KBS}"\n',
    "agent.env": 'AGENT_CVM_ID="a"\n',
    "registries.conf": "",
}


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        pytest.param(TOLD, None, id="as it should be"),
        pytest.param({"aa.toml": TOLD["aa.toml"]}, None, id="less"),
        pytest.param(
            {**TOLD, "aa.toml": TOLD["aa.toml"].replace("2.2", "2.3")},
            "http://10.0.2.3:8080",
            id="another KBS",
        ),
        pytest.param({**TOLD, "authorized_keys": "x"}, '["authorized_keys"]', id="one more"),
        pytest.param({**TOLD, "aa.toml": "= ="}, "", id="a file that does not read"),
        pytest.param({"agent.env": ""}, "", id="no KBS"),
    ],
)
async def test_only_told_this(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, told: dict[str, str], wrong: str | None
) -> None:
    text = build(told).decode()
    await start(tpm, init_data=text)
    policy = documented("Only told this", KBS_URL=TOLD_KBS)
    async with owner(ca, tmp_path / "kbs", policy, ALGO) as kbs:
        guest = await attested(kbs, tpm, init_data=text)
        answer = await guest.get(ALGO)
        if wrong is None:
            assert guest.key.decrypt(answer.json()) == SECRETS[ALGO]
            return
        findings = await denial(kbs, answer)
        assert "resource-policy" in findings
        if wrong:
            assert findings["tpm.init_data"]["actual"] == wrong


async def run(tpm: Tpm, *computations: Computation) -> None:
    await start(tpm)
    for each in computations:
        await tpm.measure(event_of(each))


CASES = [
    pytest.param([WANTED], True, id="the computation"),
    pytest.param([], False, id="nothing measured yet"),
    pytest.param([SWAPPED[0]], False, id="another algorithm with the same key path"),
    pytest.param([SWAPPED[1]], False, id="another dataset"),
    pytest.param([SWAPPED[0], WANTED], False, id="after another computation"),
    pytest.param([WANTED, SWAPPED[0]], False, id="and then another computation"),
    pytest.param([WANTED, WANTED], False, id="twice"),
]


@pytest.mark.parametrize(("computations", "allowed"), CASES)
async def test_only_this_computation(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, computations: list[Computation], allowed: bool
) -> None:
    await run(tpm, *computations)
    policy = documented("Only this computation", MANIFEST_DIGEST=WANTED.digest().hex())
    async with owner(ca, tmp_path / "kbs", policy, ALGO, DATA) as kbs:
        assert await gets(kbs, tpm, ALGO) is allowed
        assert await gets(kbs, tpm, DATA) is allowed
        if not allowed:
            guest = await attested(kbs, tpm)
            finding = (await denial(kbs, await guest.get(DATA)))["tpm.computations"]
            measured = [each.digest().hex() for each in computations]
            assert json.loads(finding["actual"]) == measured
            assert finding["expected"] == WANTED.digest().hex()


@pytest.mark.parametrize(
    ("computations", "allowed"),
    [
        *CASES,
        pytest.param([SWAPPED[2]], True, id="the same with another key path"),
        pytest.param([computation(algorithm="")], False, id="algorithm not pinned"),
        pytest.param([computation(dataset="")], False, id="dataset not pinned"),
    ],
)
async def test_only_this_algorithm_for_this_dataset(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, computations: list[Computation], allowed: bool
) -> None:
    await run(tpm, *computations)
    policy = documented(
        "Only this algorithm for this dataset", ALGORITHM_DIGEST=ALGORITHM, DATASET_DIGEST=DATASET
    )
    async with owner(ca, tmp_path / "kbs", policy, ALGO, DATA) as kbs:
        assert await gets(kbs, tpm, DATA) is allowed
        assert not await gets(kbs, tpm, ALGO)


@pytest.mark.parametrize(
    ("ran", "algo", "data"),
    [
        pytest.param(WANTED, True, True, id="what both agreed to"),
        pytest.param(SWAPPED[0], True, False, id="another algorithm"),
        pytest.param(SWAPPED[1], False, False, id="another dataset"),
    ],
)
async def test_two_owners(  # noqa: PLR0917 - a table
    ca: TpmCa, tpm: Tpm, tmp_path: Path, ran: Computation, algo: bool, data: bool
) -> None:
    await run(tpm, ran)
    heading = "Two owners, two KBSs"
    of_algorithm = documented(heading, 0, DATASET_DIGEST=DATASET)
    of_data = documented(
        heading, 1, ALGORITHM_DIGEST=ALGORITHM, MANIFEST_DIGEST=WANTED.digest().hex()
    )
    async with (
        owner(ca, tmp_path / "algorithm", of_algorithm, ALGO) as first,
        owner(ca, tmp_path / "data", of_data, DATA) as second,
    ):
        assert await gets(first, tpm, ALGO) is algo
        assert await gets(second, tpm, DATA) is data
        # Neither has, or speaks for, the other one's key.
        assert not await gets(first, tpm, DATA)
        assert not await gets(second, tpm, ALGO)
        # A token of one is worth nothing at the other.
        guest = await attested(first, tpm)
        stranger = await Handshake.opened(second, tpm, tpm.params, init_data=INIT_DATA)
        answer = await stranger.get(DATA, token=guest.token)
        assert answer.status_code == 401


@pytest.mark.parametrize("content", ["{}", "[]", "x", '{"manifest":"a"}', '{"manifest":1}'])
async def test_a_computation_that_does_not_read(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, content: Any
) -> None:
    await start(tpm)
    await tpm.measure(runtime("cocos", "computation", content))
    async with owner(ca, tmp_path / "kbs", documented_image(), ALGO) as kbs:
        guest = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
        answer = await guest.attest(await guest.evidence(cmdline=CMDLINE))
        assert "tpm.event-log" in await denial(kbs, answer)


def documented_image() -> str:
    return documented("Only this image", PCR_11=reference_values(boot())["tpm_pcr11"][0])
