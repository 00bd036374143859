# SPDX-License-Identifier: Apache-2.0
"""What administrators list, read back and delete, by the client and by plain HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from _kbs import URL, InProcessKbs, admin_pair, kbs_in_process
from _through import Through

from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import (
    AuthenticationError,
    CallerError,
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from cocos.policy import defaults
from cocos.wire.kbs.protocol import ResourcePath

POLICY = "package policy\nimport rego.v1\nallow := false # é\n"
RULES = "package policy\nimport rego.v1\ntrust_claims := {}\n"


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as kbs:
        yield kbs


@pytest.fixture
async def admin(kbs: InProcessKbs) -> AsyncIterator[KbsAdmin]:
    async with kbs.admin() as admin:
        yield admin


@pytest.fixture
async def http(kbs: InProcessKbs) -> AsyncIterator[httpx.AsyncClient]:
    token = admin_jwt.mint(kbs.admin_key, now=kbs.now)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=f"{URL}/kbs/v0", headers=headers, transport=kbs.transport()
    ) as http:
        yield http


async def test_names_of_resources(admin: KbsAdmin) -> None:
    assert await admin.list_resources() == []
    for name in ("default/key/b", "default/key/a", "default/keys/a", "d%/k_/a".replace("%", "-")):
        await admin.set_resource(ResourcePath.parse(name), b"secret")
    assert await admin.list_resources() == [
        "d-/k_/a",
        "default/key/a",
        "default/key/b",
        "default/keys/a",
    ]
    assert await admin.list_resources("default/key/") == ["default/key/a", "default/key/b"]
    for wildcard in ("default/%", "d_", "*", "default/key/a/"):
        assert await admin.list_resources(wildcard) == []
    await admin.delete_resource(ResourcePath.parse("default/key/a"))
    assert await admin.list_resources("default/key/") == ["default/key/b"]


async def test_what_is_not_there_is_said_without_the_words_of_trustee(admin: KbsAdmin) -> None:
    with pytest.raises(NotFoundError, match=r"refused to delete a/b/c: there is no resource a/b/c"):
        await admin.delete_resource(ResourcePath.parse("a/b/c"))
    with pytest.raises(NotFoundError, match=r"refused the reference value v: there is no"):
        await admin.get_reference_value("v")


async def test_resource_policies(admin: KbsAdmin) -> None:
    assert await admin.list_resource_policies() == ["resource-policy"]
    assert await admin.get_resource_policy("resource-policy") == defaults.text(defaults.RESOURCE)
    await admin.set_resource_policy(POLICY)
    await admin.set_resource_policy(POLICY + "\n", "resource/team-a")
    assert await admin.list_resource_policies() == ["resource-policy", "resource/team-a"]
    assert await admin.get_resource_policy("resource-policy") == POLICY
    assert await admin.get_resource_policy("resource/team-a") == POLICY + "\n"
    for policy_id in ("resource-policy", "resource/team-a"):
        await admin.delete_resource_policy(policy_id)
        with pytest.raises(NotFoundError):
            await admin.delete_resource_policy(policy_id)
    assert await admin.get_resource_policy("resource-policy") == defaults.text(defaults.RESOURCE)
    with pytest.raises(NotFoundError, match="resource/team-a"):
        await admin.get_resource_policy("resource/team-a")


async def test_attestation_policies(admin: KbsAdmin) -> None:
    known = await admin.list_attestation_policies()
    assert known == ["default_cpu", "default_gpu"]
    assert await admin.get_attestation_policy("default_cpu") == defaults.text("default_cpu")
    await admin.set_attestation_policy("default_cpu", RULES)
    await admin.set_attestation_policy("mine", RULES)
    assert await admin.list_attestation_policies() == [*known, "mine"]
    assert await admin.get_attestation_policy("default_cpu") == RULES
    for policy_id in ("default_cpu", "mine"):
        await admin.delete_attestation_policy(policy_id)
        with pytest.raises(NotFoundError):
            await admin.delete_attestation_policy(policy_id)
    assert await admin.get_attestation_policy("default_cpu") == defaults.text("default_cpu")
    with pytest.raises(NotFoundError, match="mine"):
        await admin.get_attestation_policy("mine")


async def test_reference_values(admin: KbsAdmin) -> None:
    assert await admin.list_reference_values() == []
    odd = "rvps:///a b/ü?x#y%2F:1"
    await admin.register_reference_values({"svn": ["1"], odd: {"a": 1}})
    listed = await admin.list_reference_values()
    assert {value["name"]: value["value"] for value in listed} == {"svn": ["1"], odd: {"a": 1}}
    assert {value["expiration"] for value in listed} == {"2027-11-23T12:00:00Z"}
    assert await admin.get_reference_value(odd) == {"a": 1}
    await admin.delete_reference_value(odd)
    with pytest.raises(NotFoundError):
        await admin.delete_reference_value(odd)
    assert [value["name"] for value in await admin.list_reference_values()] == ["svn"]


async def test_a_doubtful_policy_is_stored_and_doubted(
    admin: KbsAdmin, http: httpx.AsyncClient
) -> None:
    doubtful = f"{POLICY}\nalow if input.submod\n"
    for policy_id in (None, "resource/a"):
        first, second = await admin.set_resource_policy(doubtful, policy_id)
        assert "did you mean" in first
        assert "did you mean" in second
    assert await admin.set_resource_policy(POLICY) == ()
    rules = 'package policy\ntrust_claims := {"hardwear": 2}\n'
    (warning,) = await admin.set_attestation_policy("mine", rules)
    assert "did you mean hardware" in warning
    with pytest.raises(CallerError, match="no rule allow"):
        await admin.set_resource_policy("package policy\nalow := true\n", "resource/a")
    assert await admin.get_resource_policy("resource/a") == doubtful


async def test_plain_http(http: httpx.AsyncClient) -> None:
    for route, text in (
        ("resource-policy/resource/a", POLICY),
        ("attestation-policy/mine", "package policy\ntrust_claims := {}\n"),
    ):
        stored = await http.put(route, content=text)
        assert stored.status_code == 200
        assert stored.json() == {"warnings": []}
        answer = await http.get(route)
        assert answer.text == text
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert (await http.put(route, content=b"\xff")).status_code == 400
        assert (await http.put(route, content="nonsense")).status_code == 400
        assert (await http.delete(route)).status_code == 200
        assert (await http.get(route)).status_code == 404
    assert (await http.put("resource-policy/UPPER", content=POLICY)).status_code == 400
    assert (await http.put("reference-value/svn", content=b'["1"]')).status_code == 200
    assert (await http.get("reference-value/svn")).json() == ["1"]
    for bad in (b"", b"[", b"1e999"):
        assert (await http.put("reference-value/svn", content=bad)).status_code == 400
    assert (await http.get("reference-value/svn")).json() == ["1"]
    assert (await http.delete("reference-value/svn")).status_code == 200
    assert (await http.post("resource/a/b/c", content=b"x")).status_code == 200
    once = await http.post("resource/a/b/c", content=b"y", headers={"If-None-Match": "*"})
    assert once.status_code == 409
    assert (await http.get("resource")).json() == ["a/b/c"]
    assert (await http.patch("resource-policy/resource/a")).status_code == 405
    for unknown in ("nebula-ca/credential", "pkcs11/resource/a/b/c", "resource/a/b"):
        assert (await http.post(unknown)).status_code in {400, 404}


ADMIN_ROUTES = [
    *[("GET", route) for route in ("resource", "resource-policy", "attestation-policy")],
    *[("GET", route) for route in ("reference-value", "reference-value/a", "denial/a")],
    *[(verb, "resource-policy/a") for verb in ("GET", "PUT", "DELETE")],
    *[(verb, "attestation-policy/a") for verb in ("GET", "PUT", "DELETE")],
    *[(verb, "reference-value/a") for verb in ("GET", "PUT", "DELETE")],
    *[(verb, "resource/a/b/c") for verb in ("POST", "DELETE")],
    *[("POST", route) for route in ("resource-policy", "attestation-policy", "reference-value")],
]


@pytest.mark.parametrize(("verb", "route"), ADMIN_ROUTES)
async def test_nobody_else_may(kbs: InProcessKbs, verb: str, route: str) -> None:
    stranger = admin_jwt.mint(admin_pair()[0], now=kbs.now)
    async with httpx.AsyncClient(base_url=f"{URL}/kbs/v0", transport=kbs.transport()) as http:
        for headers in ({}, {"Authorization": f"Bearer {stranger}"}):
            answer = await http.request(verb, route, headers=headers, content=b"{}")
            assert answer.status_code == 401
            assert answer.json()["type"].endswith("/AdminAuthAccess")


async def test_refusals_are_errors_of_ours(kbs: InProcessKbs, admin: KbsAdmin) -> None:
    with pytest.raises(CallerError, match="no id of a resource policy"):
        await admin.set_resource_policy(POLICY, "UPPER")
    async with kbs.admin(admin_pair()[0]) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.list_resources()
    with pytest.raises(FormatError):
        ResourcePath.parse("a/b")


@pytest.mark.parametrize(
    "sent", [b'["resource-policy"]', b"[]", b"", b"null", b"<html>", b'{"policy":"package"}']
)
async def test_what_is_no_policy_is_not_taken_for_one(sent: bytes) -> None:
    """Trustee's KBS passes an id over, and answers with the list of ids."""

    def trustee(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        return httpx.Response(200, content=sent, headers={"Content-Type": "text/xml"})

    transport = Through(httpx.MockTransport(trustee), URL)
    async with KbsAdmin(URL, token="t", transport=transport) as admin:
        for ask in (admin.get_resource_policy, admin.get_attestation_policy):
            with pytest.raises(UnsupportedError, match="did not send the text") as caught:
                await ask("resource-policy")
            assert "Trustee" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    ["package policy\n", "# mine\n\npackage policy\n", "\ufeffpackage policy\n", " package x"],
)
async def test_every_policy_is_taken_for_one(text: str) -> None:
    def ours(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=text.encode())

    async with KbsAdmin(
        URL, token=None, transport=Through(httpx.MockTransport(ours), URL)
    ) as admin:
        assert await admin.get_resource_policy("resource-policy") == text
