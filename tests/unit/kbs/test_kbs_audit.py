# SPDX-License-Identifier: Apache-2.0
"""What the key broker notes of who asked for what, and that nothing goes out unnoted."""

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _generations import Guest
from _kbs import InProcessKbs, admin_pair, kbs_in_process

from cocos._types import JsonObject
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, base64url
from cocos.crypto.admin_jwt import load_public_key
from cocos.errors import AccessDeniedError, AuthenticationError, CocosError, UnreachableError
from cocos.kbs.admission import BURST_SECONDS
from cocos.kbs.audit import DENIALS_PER_SECOND, MAX_NAME, Auditor, Trail
from cocos.kbs.denials import Denials
from cocos.transport.client_address import ClientAddresses
from cocos.wire import audit
from cocos.wire.audit import Verification
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

PATH = ResourcePath.parse("default/key/1")
URI = ResourceUri.parse(PATH.uri)
SECRET = b'{"policy": "c2VjcmV0"}'  # looks like something else
CLAIMS = "package policy\ntrust_claims := {}\n"
DENY = "package policy\nimport rego.v1\ndefault allow := false\n"


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as made:
        made.client = ("192.0.2.7", 4711)
        yield made


async def entries(kbs: InProcessKbs, after: int = 0) -> list[JsonObject]:
    """Entries as they are read over HTTP, after verifying them all."""
    async with kbs.admin() as admin:
        head = await admin.audit_head()
        records = (await admin.audit_page(0)).records
    done = Verification(head.log, load_public_key(head.public_key.encode()))
    for record in records:
        done.add(record)
    done.end()
    assert not done.findings
    return [audit.decode(record) for record in records if record.seq > after]


def only(found: list[JsonObject], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(entry.get(name) for name in names) for entry in found]


async def put(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.set_resource(PATH, SECRET)


async def test_a_release_tells_who_got_what_and_why(kbs: InProcessKbs) -> None:
    await put(kbs)
    async with kbs.guest() as guest:
        assert await guest.get_resource(URI) == SECRET
        token = await guest.attest()
    change, attested, released = await entries(kbs)
    assert only([change], "event", "admin", "step", "address") == [
        ("administered", "admin", "POST /kbs/v0/resource/default/key/1", "192.0.2.7")
    ]
    assert attested["event"] == "attested"
    assert attested["tee"] == "sample"
    assert attested["affirming"] is True
    assert attested["token"] == hashlib.sha256(token.encode()).hexdigest()
    assert len(attested["evidence"]) == 64
    assert released["event"] == "released"
    for name in ("tee", "evidence", "token", "address"):
        assert released[name] == attested[name]
    assert released["request"] != attested["request"]
    assert released["resource"] == "default/key/1"
    assert released["verdict"] == {"cpu0": "affirming"}
    assert released["policy"] == "resource-policy"
    assert len(released["policy_digest"]) == 64
    assert [entry["seq"] for entry in (change, attested, released)] == [1, 2, 3]


async def test_a_denial_by_policy_names_the_policy(kbs: InProcessKbs) -> None:
    await put(kbs)
    async with kbs.admin() as admin:
        await admin.set_resource_policy(DENY)
    async with kbs.guest() as guest:
        with pytest.raises(AccessDeniedError) as denied:
            await guest.get_resource(URI)
    *_, change, _, refused = await entries(kbs)
    digest = hashlib.sha256(DENY.encode()).hexdigest()
    assert only([change], "event", "policy_digest") == [("administered", digest)]
    assert only([refused], "event", "code", "policy_digest", "resource") == [
        ("denied", "denied", digest, "default/key/1")
    ]
    assert "resource-policy" in refused["checks"]
    assert refused["request"] in (denied.value.hint or "")


@pytest.mark.parametrize("more", [{}, {"policy_id": 5}, {"policy_id": "resource/team-b"}])
async def test_a_change_of_the_global_policy_is_noted_as_what_it_is(
    kbs: InProcessKbs, more: JsonObject
) -> None:
    token = admin_jwt.mint(kbs.admin_key, now=kbs.now)
    body = {"policy": base64url.encode(DENY.encode()), **more}
    answer = await Guest(kbs).call(
        "POST", "resource-policy", json=body, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200
    digest = hashlib.sha256(DENY.encode()).hexdigest()
    assert only(await entries(kbs), "event", "policy", "policy_digest") == [
        ("administered", "resource-policy", digest)
    ]


async def test_other_policies_are_noted_by_their_ids(kbs: InProcessKbs) -> None:
    token = admin_jwt.mint(kbs.admin_key, now=kbs.now)
    admin, guest = {"Authorization": f"Bearer {token}"}, Guest(kbs)
    encoded = base64url.encode(CLAIMS.encode())
    for method, path, body in (
        ("PUT", "resource-policy/resource/a", {"content": DENY}),
        ("PUT", "attestation-policy/mine", {"content": CLAIMS}),
        ("POST", "attestation-policy", {"json": {"policy": encoded, "policy_id": "mine"}}),
        ("POST", "attestation-policy", {"json": {"policy": encoded}}),
    ):
        await guest.call(method, path, headers=admin, **body)
    deny, claims = (hashlib.sha256(text.encode()).hexdigest() for text in (DENY, CLAIMS))
    assert only(await entries(kbs), "event", "policy", "policy_digest") == [
        ("administered", "resource/a", deny),
        ("administered", "mine", claims),
        ("administered", "mine", claims),
        ("failed", None, None),
    ]


async def test_strangers_are_noted(kbs: InProcessKbs) -> None:
    stranger, _ = admin_pair()
    async with kbs.admin(stranger) as admin:
        with pytest.raises(AuthenticationError):
            await admin.set_resource(PATH, SECRET)
    (refused,) = await entries(kbs)
    assert only([refused], "event", "code", "admin", "step") == [
        ("denied", "unauthenticated", None, "POST /kbs/v0/resource/default/key/1")
    ]


async def test_a_change_that_failed_is_noted_as_such(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        with pytest.raises(CocosError):
            await admin.set_resource_policy("no rego")
        with pytest.raises(CocosError):
            await admin.delete_resource(PATH)
    found = await entries(kbs)
    assert [entry["event"] for entry in found] == ["administered", "failed"] * 2
    for before, after in (found[:2], found[2:]):
        assert before["request"] == after["request"]
    assert only(found[3:], "code", "admin") == [("not-found", "admin")]


async def test_no_secret_and_no_token_is_in_it(kbs: InProcessKbs) -> None:
    await put(kbs)
    async with kbs.guest() as guest:
        await guest.get_resource(URI)
        token = await guest.attest()
    assert kbs.storage is not None
    rows = await kbs.storage.database.read("SELECT entry FROM audit")
    text = " ".join(row[0] for row in rows)
    for secret in (SECRET, b"secret"):
        for form in (secret, base64.b64encode(secret), hashlib.sha256(secret).hexdigest().encode()):
            assert form.decode() not in text
    for part in token.split("."):
        assert part not in text


async def test_nothing_goes_out_when_it_cannot_be_noted(kbs: InProcessKbs) -> None:
    await put(kbs)
    async with kbs.guest() as guest:
        await guest.attest()
        assert kbs.storage is not None
        await kbs.storage.database.write("ALTER TABLE audit RENAME TO away")
        with pytest.raises(UnreachableError):
            await guest.get_resource(URI)
        async with kbs.admin() as admin:
            with pytest.raises(CocosError):
                await admin.delete_resource(PATH)
        other = Guest(kbs)
        await other.auth()
        assert (await other.attest()).status_code == 503
        await kbs.storage.database.write("ALTER TABLE away RENAME TO audit")
        assert (await other.get(str(PATH))).status_code == 401
        assert await guest.get_resource(URI) == SECRET
    assert (await entries(kbs))[-1]["event"] == "released"


async def test_strangers_cannot_fill_the_disk(kbs: InProcessKbs) -> None:
    now = 0.0
    assert kbs.storage is not None
    auditor = Auditor(kbs.storage.audit, ClientAddresses(), seconds=lambda: now)
    error = AuthenticationError("no")
    for _ in range(DENIALS_PER_SECOND * BURST_SECONDS + 200):
        await auditor.denied(Trail(), error)
    now = 1.0
    await auditor.denied(Trail(), error)
    found = await entries(kbs)
    assert [entry["event"] for entry in found[-2:]] == ["denied-more", "denied"]
    assert found[-2]["count"] == 200
    assert len(found) == DENIALS_PER_SECOND * BURST_SECONDS + 2


async def test_a_denial_takes_little_room_whatever_was_asked_for(kbs: InProcessKbs) -> None:
    guest, long = Guest(kbs), "c" * 60_000
    assert (await guest.call("DELETE", f"resource/a/b/{long}")).status_code == 401
    assert (await guest.get("/".join(["d" * 512] * 3))).status_code == 401
    by_admin, by_guest = await entries(kbs)
    assert by_admin["step"].startswith("DELETE /kbs/v0/resource/a/b/ccc")
    assert by_guest["resource"].startswith("ddd")
    assert {len(by_admin["step"]), len(by_guest["step"]), len(by_guest["resource"])} == {MAX_NAME}


async def test_an_explanation_takes_little_room_whatever_was_asked_for(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path) as kbs:
        assert kbs.store is not None
        denials = Denials(kbs.store, clock=kbs.clock)
        await denials.record("0" * 16, "x" * 60_000, AccessDeniedError("no"), handshake=False)
        assert len((await denials.get("0" * 16)).step) == MAX_NAME


async def test_only_administrators_read_it(kbs: InProcessKbs) -> None:
    async with kbs.admin(admin_pair()[0]) as admin:
        for work in (admin.audit_head(), admin.audit_page(0)):
            with pytest.raises(AuthenticationError):
                await work


async def test_pages(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        for _ in range(5):
            await put(kbs)
        assert [record.seq for record in (await admin.audit_page(1, 2)).records] == [2, 3]
        assert not (await admin.audit_page(5)).records
        await bad_pages(admin)


async def bad_pages(admin: KbsAdmin) -> None:
    for after, limit in ((-1, 1), (0, 1001), (2**63, 1)):
        with pytest.raises(CocosError, match="is not a number from 0 to"):
            await admin.audit_page(after, limit)
