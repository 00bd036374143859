# SPDX-License-Identifier: Apache-2.0
"""What administrators change is changed, and nothing that they asked to keep."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from _generations import Guest
from _kbs import URL, InProcessKbs, kbs_in_process

from cocos.clients.kbs_admin import KbsAdmin
from cocos.crypto import kek
from cocos.errors import NotFoundError, StateError
from cocos.stores.base import Namespace
from cocos.wire.kbs.protocol import ResourcePath

KEY, OTHER_KEY = b"k" * kek.KEY_BYTES, b"o" * kek.KEY_BYTES
PATH = ResourcePath.parse("default/key/1")
DENY = "package policy\ndefault allow := false\nallow if input.submods == {}\n"
CLAIMS = 'package policy\ntrust_claims := {"hardware": 97}\n'
MINE = "resource/default/key"


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as made:
        yield made


@pytest.fixture
async def admin(kbs: InProcessKbs) -> AsyncIterator[KbsAdmin]:
    async with kbs.admin() as made:
        yield made


async def test_a_resource_is_replaced_where_that_is_asked_for(
    kbs: InProcessKbs, admin: KbsAdmin
) -> None:
    async def kept() -> bytes | None:
        assert kbs.store is not None
        return await kbs.store.get(Namespace.RESOURCE, str(PATH))

    await admin.set_resource(PATH, KEY, overwrite=False)
    with pytest.raises(StateError, match="already a resource"):
        await admin.set_resource(PATH, OTHER_KEY, overwrite=False)
    assert await kept() == KEY
    await admin.set_resource(PATH, OTHER_KEY)
    assert await kept() == OTHER_KEY
    assert await admin.list_resources("default/") == [str(PATH)]
    await admin.delete_resource(PATH)
    assert await kept() is None
    with pytest.raises(NotFoundError):
        await admin.delete_resource(PATH)


async def test_a_policy_is_replaced_where_that_is_asked_for(admin: KbsAdmin) -> None:
    other = DENY.replace("{}", "[]")
    await admin.set_resource_policy(DENY, MINE, overwrite=False)
    with pytest.raises(StateError):
        await admin.set_resource_policy(other, MINE, overwrite=False)
    assert await admin.get_resource_policy(MINE) == DENY
    await admin.set_resource_policy(other, MINE)
    assert await admin.get_resource_policy(MINE) == other


async def test_what_is_deleted_is_gone(admin: KbsAdmin) -> None:
    default = await admin.get_attestation_policy("default_cpu")
    await admin.set_resource_policy(DENY, MINE)
    await admin.set_attestation_policy("default_cpu", CLAIMS)
    await admin.set_reference_value("svn", ["1"])
    assert await admin.get_attestation_policy("default_cpu") == CLAIMS
    assert await admin.get_reference_value("svn") == ["1"]
    await admin.delete_resource_policy(MINE)
    await admin.delete_attestation_policy("default_cpu")
    await admin.delete_reference_value("svn")
    assert MINE not in await admin.list_resource_policies()
    assert await admin.get_attestation_policy("default_cpu") == default
    assert await admin.list_reference_values() == []
    for again in (
        admin.delete_resource_policy(MINE),
        admin.delete_attestation_policy("default_cpu"),
        admin.delete_reference_value("svn"),
    ):
        with pytest.raises(NotFoundError):
            await again


async def test_values_of_a_message_are_registered(admin: KbsAdmin) -> None:
    await admin.register_reference_values({"a": 1, "b": [2]})
    shown = {each["name"]: each["value"] for each in await admin.list_reference_values()}
    assert shown == {"a": 1, "b": [2]}


async def test_keys_that_the_global_policy_alone_guards(admin: KbsAdmin) -> None:
    stored = {
        "default/key/raw": KEY,
        "default/key/text": base64.b64encode(KEY),
        "default/key/short": KEY[:-1],
        "default/key/empty": b"",
        "team/key/bound": KEY,
    }
    for name, data in stored.items():
        await admin.set_resource(ResourcePath.parse(name), data)
    await admin.set_resource_policy(DENY, "resource/team")
    assert await admin.unbound_keys() == ["default/key/raw", "default/key/text"]


async def test_a_key_that_is_deleted_meanwhile_is_nobodys(
    kbs: InProcessKbs, admin: KbsAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("default/key/a", "default/key/b"):
        await admin.set_resource(ResourcePath.parse(name), KEY)
    assert kbs.store is not None
    get = kbs.store.get

    async def without_a(namespace: Namespace, key: str) -> bytes | None:
        return None if key == "default/key/a" else await get(namespace, key)

    monkeypatch.setattr(kbs.store, "get", without_a)
    assert await admin.unbound_keys() == ["default/key/b"]


async def test_a_denial_is_explained(kbs: InProcessKbs, admin: KbsAdmin) -> None:
    guest = Guest(kbs, tee="se")
    denied = (await guest.auth()).json()["id"]
    assert (await admin.explain(denied))["findings"]
    with pytest.raises(NotFoundError):
        await admin.explain("0" * len(denied))


async def test_what_is_stored_and_deleted_is_counted(kbs: InProcessKbs, admin: KbsAdmin) -> None:
    await admin.set_resource(PATH, KEY)
    await admin.delete_resource(PATH)
    async with httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http:
        text = (await http.get("/metrics")).text
    for name in ("writes", "deletes"):
        assert f"kbs_resource_{name}_total 1.0" in text


TEXT = base64.b64encode(OTHER_KEY)


@pytest.mark.parametrize("form", [OTHER_KEY, TEXT, TEXT + b"\n", TEXT + b"\r\n"])
async def test_whatever_form_a_key_comes_in_peers_get_its_32_bytes(
    kbs: InProcessKbs, admin: KbsAdmin, form: bytes
) -> None:
    """The guide's key is base64 text; the guest components take 32 bytes only."""
    await admin.set_resource(PATH, form)
    await admin.set_resource_policy("package policy\nallow := true if input.submods\n")
    guest = Guest(kbs)
    await guest.handshake()
    answer = await guest.call("GET", f"resource/{PATH}")
    assert answer.status_code == 200, answer.text
    assert guest.key.decrypt(answer.json()) == OTHER_KEY


@pytest.mark.parametrize(
    "name",
    ["default/secret/1", "key/keys/1", "default/Key/1", "default/key-file/key"],
)
async def test_what_is_no_key_by_its_name_is_kept_as_it_is(
    kbs: InProcessKbs, admin: KbsAdmin, name: str
) -> None:
    await admin.set_resource(ResourcePath.parse(name), TEXT + b"\n")
    assert kbs.store is not None
    assert await kbs.store.get(Namespace.RESOURCE, name) == TEXT + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TEXT + b"\n\n",
        b" " + TEXT,
        TEXT[:-1],
        TEXT[:20] + b"\n" + TEXT[20:],
        b"\xef\xbb\xbf" + TEXT,
        base64.b64encode(OTHER_KEY + b"!"),
        base64.b64encode(OTHER_KEY[:-1]),
        base64.urlsafe_b64encode(b"\xff" * kek.KEY_BYTES),
        OTHER_KEY.hex().encode(),
        b"-----BEGIN PRIVATE KEY-----\n",
    ],
)
async def test_what_is_no_key_by_its_form_is_kept_as_it_is(
    kbs: InProcessKbs, admin: KbsAdmin, data: bytes
) -> None:
    await admin.set_resource(PATH, data)
    assert kbs.store is not None
    assert await kbs.store.get(Namespace.RESOURCE, str(PATH)) == data
