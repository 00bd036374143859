# SPDX-License-Identifier: Apache-2.0
"""The example policies of docs/policies.md, each against real quotes: who gets the key.

Issue 3, point 6, and of "It must fail like this": a second algorithm with the same key
path, a dataset swapped, and a manifest swapped after measurement (a second one measured).
Point 7: what was measured and what was wanted is in the explanation. Issue 8, B5 and B8:
images that the manifest does not pin, arguments, environment, consumers.
"""

import base64
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
    manifest,
    measured,
    reference_values,
    start,
)
from _kbs import InProcessKbs, kbs_in_process
from _policies import agreed, documented
from _rcar import Handshake, denial
from _tpm import Tpm, TpmCa, runtime
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos._clock import system_clock
from cocos.wire.init_data import build
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.event import ComputationEvent

pytestmark = pytest.mark.integration

ALGO, DATA = "default/key/algo", "default/key/data"
SECRETS = {ALGO: b"a" * 32, DATA: b"d" * 32}


def computation(**changes: Any) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


def ran(*, algorithm: str = ALGORITHM, dataset: str = DATASET, **changes: Any) -> ComputationEvent:
    """A computation whose manifest pins nothing, of the images that it resolved to."""
    unpinned = computation(algorithm="", dataset="", result_consumers=CONSUMERS, **changes)
    return measured(unpinned, algorithm, dataset)


def consumers() -> list[dict[str, str]]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return [{"user_key": base64.b64encode(der).decode()}]


CONSUMERS = consumers()
WANTED = measured(computation(result_consumers=CONSUMERS))
SWAPPED = [
    measured(computation(result_consumers=CONSUMERS, **change))
    for change in ({"algorithm": OTHER}, {"dataset": OTHER}, {"key": "a/b/c"})
]


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
        assert 'is false: data["resource-path"] ==' in findings["resource-policy"]["problem"]
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


TOLD_KBS, TOLD_KEY = "http://10.0.2.2:8080", "A" * 43
OTHER_KEY = "B" * 42 + "A"


def host_told(kbs: str = f"{TOLD_KBS}#token-key={TOLD_KEY}", **more: str) -> dict[str, str]:
    """Init data as our manager composes it."""
    return {
        "aa.toml": f'[token_configs.kbs]\nurl = "{kbs}"\n',
        "agent.env": 'AGENT_CVM_ID="a"\n',
        "registries.conf": "",
        **more,
    }


def from_kbs(url: str) -> ComputationEvent:
    return measured(computation(kbs_url=url))


@pytest.mark.parametrize(
    ("told", "events", "wrong"),
    [
        pytest.param(host_told(), [], None, id="as it should be"),
        pytest.param({"aa.toml": host_told()["aa.toml"]}, [], None, id="less"),
        pytest.param(host_told(), [from_kbs("")], None, id="the VM's own KBS"),
        pytest.param(host_told(), [from_kbs(TOLD_KBS)], None, id="the same KBS again"),
        pytest.param(
            host_told(), [from_kbs("http://10.0.2.2:8081")], "10.0.2.2:8081", id="manifest: another"
        ),
        pytest.param(
            host_told(),
            [from_kbs(f"{TOLD_KBS}#token-key={OTHER_KEY}")],
            OTHER_KEY,
            id="manifest: another key",
        ),
        pytest.param(
            host_told("http://10.0.2.3:8080"), [], "http://10.0.2.3:8080", id="another KBS"
        ),
        pytest.param(host_told(TOLD_KBS), [], '"nothing"', id="known by nothing"),
        pytest.param(
            host_told(f"{TOLD_KBS}#token-key={OTHER_KEY}"), [], OTHER_KEY, id="another key"
        ),
        pytest.param(
            host_told(**{"cdh.toml": '[kbc]\nname = "cc_kbc"\nurl = "http://thief"\n'}),
            [],
            "thief",
            id="a second one",
        ),
        pytest.param(host_told(authorized_keys="x"), [], '["authorized_keys"]', id="one more"),
        pytest.param(host_told(**{"aa.toml": "= ="}), [], "", id="a file that does not read"),
        pytest.param({"agent.env": ""}, [], "", id="no KBS"),
        pytest.param({"agent.env": ""}, [from_kbs("")], "", id="the VM's own, and it has none"),
    ],
)
async def test_only_told_this(  # noqa: PLR0917 - a table
    ca: TpmCa,
    tpm: Tpm,
    tmp_path: Path,
    told: dict[str, str],
    events: list[ComputationEvent],
    wrong: str | None,
) -> None:
    text = build(told).decode()
    await start(tpm, init_data=text)
    for each in events:
        await tpm.measure(runtime(*each.measured()))
    policy = documented("Only told this", KBS_URL=TOLD_KBS, TOKEN_KEY=TOLD_KEY)
    async with owner(ca, tmp_path / "kbs", policy, ALGO) as kbs:
        guest = await attested(kbs, tpm, init_data=text)
        answer = await guest.get(ALGO)
        if wrong is None:
            assert guest.key.decrypt(answer.json()) == SECRETS[ALGO]
            return
        findings = await denial(kbs, answer)
        assert "resource-policy" in findings
        shown = findings.get("tpm.kbs", findings.get("tpm.init_data", {"actual": ""}))
        assert wrong in str(shown["actual"])


async def run(tpm: Tpm, *events: ComputationEvent) -> None:
    await start(tpm)
    for each in events:
        await tpm.measure(runtime(*each.measured()))


CASES = [
    pytest.param([WANTED], True, id="the computation"),
    pytest.param([], False, id="nothing measured yet"),
    pytest.param([SWAPPED[0]], False, id="another algorithm with the same key path"),
    pytest.param([SWAPPED[1]], False, id="another dataset"),
    pytest.param([SWAPPED[0], WANTED], False, id="after another computation"),
    pytest.param([WANTED, SWAPPED[0]], False, id="and then another computation"),
    pytest.param([WANTED, WANTED], False, id="twice"),
]


@pytest.mark.parametrize(
    ("events", "allowed"),
    [
        *CASES,
        pytest.param([SWAPPED[2]], False, id="the same with another key path"),
        pytest.param(
            # cocos-agent run
            [measured(computation(result_consumers=CONSUMERS), consumers=())],
            False,
            id="the result left in clear",
        ),
    ],
)
async def test_only_this_computation(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, events: list[ComputationEvent], allowed: bool
) -> None:
    await run(tpm, *events)
    policy = agreed("Only this computation", WANTED)
    async with owner(ca, tmp_path / "kbs", policy, ALGO, DATA) as kbs:
        assert await gets(kbs, tpm, ALGO) is allowed
        assert await gets(kbs, tpm, DATA) is allowed
        if not allowed:
            guest = await attested(kbs, tpm)
            finding = (await denial(kbs, await guest.get(DATA)))["tpm.computations"]
            shown = [
                (each["manifest"], each["algorithm"]) for each in json.loads(finding["actual"])
            ]
            assert shown == [(each.manifest, each.algorithm) for each in events]
            assert json.loads(finding["expected"])["manifest"] == WANTED.manifest


@pytest.mark.parametrize(
    ("event", "allowed"),
    [
        pytest.param(ran(), True, id="what the owner saw"),
        pytest.param(ran(algorithm=OTHER), False, id="started in another way"),
        pytest.param(ran(dataset=OTHER), False, id="other data"),
    ],
)
@pytest.mark.parametrize("heading", ["Only this computation", "Two owners, two KBSs"])
async def test_only_this_computation_although_nothing_is_pinned(  # noqa: PLR0917 - a table
    ca: TpmCa, tpm: Tpm, tmp_path: Path, heading: str, event: ComputationEvent, allowed: bool
) -> None:
    """A registry changes the config of an image, which is in clear, under the very manifest."""
    await run(tpm, event)
    policy = agreed(heading, ran(), number=1 if heading.startswith("Two") else 0)
    async with owner(ca, tmp_path / "kbs", policy, DATA) as kbs:
        assert event.manifest == ran().manifest
        assert await gets(kbs, tpm, DATA) is allowed


OTHERWISE = [
    pytest.param(ran(args=["cat", "/cocos/datasets/data.csv"]), False, id="other arguments"),
    pytest.param(ran(args=[""]), False, id="an empty argument"),
    pytest.param(ran(filename="script.py"), False, id="the data under another name"),
    pytest.param(ran(agent_config={"log_level": "debug"}), False, id="output for everybody"),
    pytest.param(ran(algorithm=OTHER), False, id="another entry point or environment"),
    pytest.param(ran(dataset=OTHER), False, id="data not pinned, another"),
    pytest.param(ran(), True, id="not pinned, the same"),
    pytest.param(ran(key="a/b/c"), True, id="another key path"),
]


@pytest.mark.parametrize(
    ("events", "allowed"),
    [
        *CASES,
        *(pytest.param(list(each.values[:1]), each.values[1], id=each.id) for each in OTHERWISE),
        pytest.param(
            [measured(computation(result_consumers=consumers()))], False, id="another consumer"
        ),
        pytest.param(
            [measured(computation(result_consumers=[*CONSUMERS, *consumers()]))],
            False,
            id="one more consumer",
        ),
        pytest.param([measured(computation())], False, id="no consumer"),
    ],
)
async def test_only_this_algorithm_for_this_dataset(
    ca: TpmCa, tpm: Tpm, tmp_path: Path, events: list[ComputationEvent], allowed: bool
) -> None:
    await run(tpm, *events)
    policy = agreed("Only this algorithm for this dataset", WANTED)
    async with owner(ca, tmp_path / "kbs", policy, ALGO, DATA) as kbs:
        assert await gets(kbs, tpm, DATA) is allowed
        assert not await gets(kbs, tpm, ALGO)


async def test_arguments_are_those_that_were_agreed_to(ca: TpmCa, tpm: Tpm, tmp_path: Path) -> None:
    """As before, of a program that has arguments: none is another way to run it."""
    wanted = ran(args=["--fit", "/cocos/datasets/data.csv"])
    policy = agreed("Only this algorithm for this dataset", wanted)
    async with owner(ca, tmp_path / "kbs", policy, DATA) as kbs:
        await run(tpm, wanted)
        assert await gets(kbs, tpm, DATA)
        await tpm.measure(runtime(*ran().measured()))
        assert not await gets(kbs, tpm, DATA)


@pytest.mark.parametrize(
    ("event", "algo", "data"),
    [
        pytest.param(WANTED, True, True, id="what both agreed to"),
        pytest.param(SWAPPED[0], False, False, id="another algorithm"),
        pytest.param(SWAPPED[1], False, False, id="another dataset"),
        pytest.param(SWAPPED[2], True, False, id="another key path"),
        *(pytest.param(each.values[0], each.values[1], False, id=each.id) for each in OTHERWISE),
    ],
)
async def test_two_owners(  # noqa: PLR0917 - a table
    ca: TpmCa, tpm: Tpm, tmp_path: Path, event: ComputationEvent, algo: bool, data: bool
) -> None:
    await run(tpm, event)
    heading = "Two owners, two KBSs"
    of_algorithm, of_data = agreed(heading, WANTED), agreed(heading, WANTED, number=1)
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


OLD = f'{{"algorithm":"{ALGORITHM}","datasets":["{DATASET}"],"manifest":"{WANTED.manifest}"}}'


@pytest.mark.parametrize("content", ["{}", "[]", "x", '{"manifest":"a"}', OLD])
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
