# SPDX-License-Identifier: Apache-2.0
"""What the key provider must not do with keys that are somebody's already, at a real KBS."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _kbs_program import Kbs, start_kbs

from cocos._clock import system_clock
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, kek
from cocos.errors import FormatError, NotFoundError, StateError
from cocos.host.key_folder import KeyFolder
from cocos.host.offline_fs import OfflineResources
from cocos.keyprovider.registration import Binding, Registrar
from cocos.keyprovider.service import KeyProvider
from cocos.policy import owners
from cocos.wire import ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo-key")
OPTIONS = encode({"symkey": bytes(32), "cipheroptions": {"nonce": bytes(16)}})


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[Kbs]:
    async with start_kbs(tmp_path) as server:
        yield server


def registrar(kbs: Kbs) -> Registrar:
    binding = Binding(owners.write(owners.Terms(), said="a test"))
    return Registrar(
        kbs.url,
        credentials=Credentials(private_key=kbs.pem),
        clock=system_clock,
        binding=binding,
    )


async def resources(kbs: Kbs) -> list[str]:
    token = admin_jwt.mint(kbs.pem, now=system_clock())
    async with KbsAdmin(kbs.url, token=token) as admin:
        return [str(path) for path in await admin.list_resources()]


async def wrap(own: KeyProvider, parameter: str) -> ocicrypt.Packet:
    reply = await own.wrap(ocicrypt.wrap_input(OPTIONS, [parameter]))
    return ocicrypt.Packet.parse(ocicrypt.parse_wrap_output(reply))


async def test_nothing_is_made_without_having_looked(kbs: Kbs, tmp_path: Path) -> None:
    """It could register a key, but nobody has told it who may have that one already."""
    folder = KeyFolder(tmp_path / "keys")
    own = KeyProvider(folder=folder, registrar=registrar(kbs))
    for parameter in (f"keyid={KEY.uri}", f"cc_kbc::{KEY.uri}"):
        with pytest.raises(NotFoundError, match=f"there is no key {KEY.uri}"):
            await wrap(own, parameter)
    assert folder.read(KEY) is None
    assert await kbs.requests("POST", "/kbs/v0/resource") == 0
    # A name that nobody can have is made without a look.
    packet = await wrap(own, "Enabled")
    assert await resources(kbs) == [packet.key.path]
    kept = folder.read(ResourcePath.parse(packet.key.path))
    assert kept is not None, "the owner cannot open their own image"
    assert kek.unwrap(kept, packet.wrapped, "it") == OPTIONS
    packet = await wrap(KeyProvider(registrar=registrar(kbs)), "Enabled")
    assert packet.key.path in await resources(kbs)


async def test_a_new_key_never_replaces_one_that_somebody_else_registered(
    kbs: Kbs, tmp_path: Path
) -> None:
    """Whoever was asked did not have it; the KBS does."""
    theirs = kek.generate()
    await kbs.store(KEY, theirs)
    (tmp_path / "none.json").write_text("{}")
    folder = KeyFolder(tmp_path / "keys")
    source = OfflineResources([tmp_path / "none.json"])
    own = KeyProvider(folder=folder, resources=source, registrar=registrar(kbs))
    with pytest.raises(StateError):
        await wrap(own, f"keyid={KEY.uri}")
    assert folder.read(KEY) is None, "a key that is nowhere registered must not be used again"
    # It is still theirs: what it wraps opens by it, once the owner gives their own file.
    with pytest.raises(StateError):
        await registrar(kbs).register(KEY, kek.generate(), new=True)
    file = tmp_path / "kek"
    file.write_bytes(theirs)
    packet = await wrap(own, f"keyid={KEY.uri}::keypath={file}")
    assert kek.unwrap(theirs, packet.wrapped, "it") == OPTIONS


async def test_a_key_file_of_the_owners_replaces_what_is_there(kbs: Kbs, tmp_path: Path) -> None:
    """They named both; another key at the KBS would leave the image closed."""
    await kbs.store(KEY, kek.generate())
    file = tmp_path / "kek"
    file.write_bytes(kek.generate())
    own = KeyProvider(registrar=registrar(kbs))
    await wrap(own, f"keyid={KEY.uri}::keypath={file}")
    assert await resources(kbs) == [str(KEY)]
    token = admin_jwt.mint(kbs.pem, now=system_clock())
    async with KbsAdmin(kbs.url, token=token) as admin:
        assert f"resource/{KEY}" in await admin.list_resource_policies()
    # What no resource can be named is not registered under another name.
    with pytest.raises(FormatError, match="cannot be registered"):
        await wrap(own, f"keyid=kbs+pkcs11:///default/key/1::keypath={file}")
    assert await resources(kbs) == [str(KEY)]
