# SPDX-License-Identifier: Apache-2.0
"""Evidence of several attesters, and init data, at one KBS (kbs.md §4, §5, §18)."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from _generations import Guest
from _kbs import InProcessKbs, kbs_in_process

from cocos.attesters import InsecureSampleAttester
from cocos.attesters.sample_device import InsecureSampleDevice
from cocos.clients.kbs_admin import KbsAdmin
from cocos.policy import defaults
from cocos.wire.kbs.protocol import InitData, ResourcePath, ResourceUri

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = ResourcePath.parse("default/key/1")
SECRET = b"KEK"
NOT_CONTRAINDICATED = """package policy
import rego.v1
default allow := false
allow if {
	every name in ["cpu0", "gpu0"] { input.submods[name]["ear.status"] != "contraindicated" }
}
"""
CPU_ONLY = """package policy
import rego.v1
default hardware := 97
hardware := 2 if input.sample
trust_claims := {"hardware": hardware, "executables": 3, "configuration": 2}
"""
DEVICE = """package policy
import rego.v1
default hardware := 97
hardware := 2 if input.sampledevice.svn in query_reference_value("device_svn")
trust_claims := {"hardware": hardware, "executables": 3, "configuration": 2}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kbs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path_factory.mktemp("kbs")) as made:
        async with made.admin() as admin:
            await admin.set_resource(PATH, SECRET)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def operator(kbs: InProcessKbs) -> AsyncIterator[KbsAdmin]:
    """Who sets policies; the default ones hold again afterwards."""
    async with kbs.admin() as admin:
        yield admin
        await admin.set_resource_policy(defaults.text(defaults.RESOURCE))
        for name in defaults.ATTESTATION:
            await admin.set_attestation_policy(name, defaults.text(name))


async def attested(guest: Guest, **changes: Any) -> httpx.Response:
    """Attest with a sample device, whose evidence may be changed."""
    await guest.auth()
    return await guest.attest(guest.body(devices={"sampledevice": guest.device() | changes}))


async def explained(kbs: InProcessKbs, answer: httpx.Response) -> list[str]:
    async with kbs.admin() as admin:
        found = await admin.explain(answer.json()["id"])
    return [finding["check"] for finding in found["findings"]]


async def test_every_attester_has_a_submodule(kbs: InProcessKbs) -> None:
    guest = Guest(kbs)
    assert (await attested(guest)).status_code == 200
    submods = guest.claims()
    assert {name: part["ear.status"] for name, part in submods.items()} == {
        "cpu0": "affirming",
        "gpu0": "affirming",
    }
    assert submods["gpu0"]["ear.veraison.annotated-evidence"]["sampledevice"] == {"svn": "2"}
    assert submods["gpu0"]["ear.cocos.insecure"] == ["sampledevice"]
    assert guest.key.decrypt((await guest.get(str(PATH))).json()) == SECRET


async def test_our_client_shows_its_devices(kbs: InProcessKbs) -> None:
    class WithDevice(InsecureSampleAttester):
        devices = (InsecureSampleDevice(),)

    async with kbs.guest(WithDevice()) as client:
        assert await client.get_resource(ResourceUri.parse(PATH.uri)) == SECRET
        payload = (await client.attest()).split(".")[1]
    assert set(json.loads(base64.urlsafe_b64decode(payload + "=="))["submods"]) == {"cpu0", "gpu0"}


@pytest.mark.parametrize("bound", [{"nonce": "other"}, {"tee-pubkey": {}}, {"more": 1}])
async def test_a_device_is_bound_to_nonce_and_key(kbs: InProcessKbs, bound: dict[str, Any]) -> None:
    guest = Guest(kbs)
    await guest.auth()
    answer = await guest.attest(guest.body(devices={"sampledevice": guest.device(**bound)}))
    assert answer.status_code == 401
    assert await explained(kbs, answer) == ["sampledevice.report_data"]
    assert (await guest.get(str(PATH))).status_code == 401


@pytest.mark.parametrize("other", ["", '{"sampledevice":{}}', "pad"])
async def test_the_cpu_vouches_for_the_devices_evidence(kbs: InProcessKbs, other: str) -> None:
    # The text that the CPU signed, byte for byte: a device cannot be left out or exchanged.
    guest = Guest(kbs)
    await guest.auth()
    body = guest.body(devices={"sampledevice": guest.device()})
    text = body["tee-evidence"]["additional_evidence"]
    body["tee-evidence"]["additional_evidence"] = f"{text} " if other == "pad" else other
    answer = await guest.attest(body)
    assert answer.status_code == 401
    assert "sample.report_data" in await explained(kbs, answer)


async def test_everything_that_does_not_hold_is_explained(kbs: InProcessKbs) -> None:
    guest = Guest(kbs)
    await guest.auth()
    devices = {"sampledevice": guest.device(nonce=""), "nvidia": {}, "tdx": {"quote": ""}}
    body = guest.body(devices=devices)
    body["tee-evidence"]["primary_evidence"]["svn"] = 5
    answer = await guest.attest(body)
    assert answer.status_code == 401
    checks = await explained(kbs, answer)
    assert checks[:2] == ["sample.evidence", "sampledevice.report_data"]
    assert len(checks) == 4


async def test_a_policy_can_ask_for_a_device(kbs: InProcessKbs, operator: KbsAdmin) -> None:
    await operator.set_resource_policy(NOT_CONTRAINDICATED)
    await operator.set_attestation_policy("default_gpu", CPU_ONLY)
    guest = Guest(kbs)
    await guest.handshake()
    assert (await guest.get(str(PATH))).status_code == 403  # no device at all
    assert (await attested(guest)).status_code == 200
    denied = await guest.get(str(PATH))
    assert denied.status_code == 403
    assert "gpu0.hardware" in await explained(kbs, denied)
    await operator.set_attestation_policy("default_gpu", DEVICE)
    await operator.register_reference_values({"device_svn": ["2"]})
    for svn, status in (("2", 200), ("3", 403)):
        assert (await attested(guest, svn=svn)).status_code == 200
        assert (await guest.get(str(PATH))).status_code == status


INIT_TOML = """version = "0.1.0"
algorithm = "sha256"
[data]
"cdh.toml" = '''
[image]
extra_root_certificates = ["certificate"]
'''
"policy.rego" = '''
package agent_policy
policy_data := {"containers": [{"OCI": {"Process": {"Args": ["/pause"]}}}, {"OCI": {
  "Annotations": {"io.kubernetes.cri.image-name": "bitnami/nginx:latest"},
  "Process": {"Args": ["nginx"], "User": {"UID": 1001}}}}]}
'''
"""
INIT_JSON = json.dumps(
    {
        "version": "0.1.0",
        "algorithm": "sha-512",
        "data": {"cdh.toml": '[image]\nextra_root_certificates = ["certificate"]\n'},
    },
    indent=1,
)


@pytest.mark.parametrize(
    "shown", [InitData("toml", INIT_TOML), InitData("json", INIT_JSON)], ids=["toml", "json"]
)
async def test_policies_see_init_data(
    kbs: InProcessKbs, operator: KbsAdmin, shown: InitData
) -> None:
    digest = hashlib.new("sha256" if shown.format == "toml" else "sha512", shown.body.encode())
    claim = base64.b64encode(digest.digest()).decode()
    await operator.set_resource_policy(
        f"""package policy
        import rego.v1
        default allow := false
        evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]
        allow if {{
            evidence.init_data == "{claim}"
            evidence.init_data_claims["cdh.toml"].image.extra_root_certificates[0] ==
                "certificate"
        }}"""
    )
    uri = ResourceUri.parse(PATH.uri)
    async with kbs.guest(init_data=shown) as client:
        assert await client.get_resource(uri) == SECRET
    other = InitData(shown.format, shown.body + "\n")
    guest = Guest(kbs)
    await guest.auth()
    body = guest.body()
    body["init-data"] = {"format": other.format, "body": other.body}
    assert (await guest.attest(body)).status_code == 200
    assert (await guest.get(str(PATH))).status_code == 403


async def test_identifiers_of_containers_reach_the_token(kbs: InProcessKbs) -> None:
    guest = Guest(kbs)
    await guest.auth()
    body = guest.body()
    body["init-data"] = {"format": "toml", "body": INIT_TOML}
    assert (await guest.attest(body)).status_code == 200
    submod = guest.claims()["cpu0"]
    assert submod["ear.trustee.identifiers"] == {
        "validated": {"container_images": ["bitnami/nginx:latest"], "container_uids": [1001]}
    }
    claims = submod["ear.veraison.annotated-evidence"]["init_data_claims"]
    assert claims["agent_policy_claims"]["containers"][1]["OCI"]["Process"]["Args"] == ["nginx"]


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({"format": "yaml", "body": ""}, 400),
        ({"format": "toml"}, 400),
        ("text", 400),
        ({"format": "toml", "body": ""}, 401),
        ({"format": "json", "body": "{}"}, 401),
        ({"format": "toml", "body": INIT_JSON}, 401),
        ({"format": "toml", "body": f"a{'.a' * 500_000} = 1"}, 401),
        (None, 200),
    ],
    ids=["format", "body", "shape", "empty", "members", "other", "long", "none"],
)
async def test_init_data_of_any_kind(kbs: InProcessKbs, shown: Any, status: int) -> None:
    guest = Guest(kbs)
    await guest.auth()
    answer = await guest.attest({**guest.body(), "init-data": shown})
    assert answer.status_code == status
    if status != 200:
        assert await explained(kbs, answer)


async def test_se_is_refused_before_it_makes_evidence(kbs: InProcessKbs) -> None:
    guest = Guest(kbs, tee="se")
    answer = await guest.auth(params={"supported-hash-algorithms": ["sha256"]})
    assert answer.status_code == 401
    assert "no verifier" in answer.json()["detail"]
    assert await explained(kbs, answer) == ["tee", "supported-hash-algorithms"]
