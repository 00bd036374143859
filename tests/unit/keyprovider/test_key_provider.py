# SPDX-License-Identifier: Apache-2.0
"""The key provider on keys of files, as ``offline_fs_kbc`` has them."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from cocos.cli._common import load_settings
from cocos.crypto import kek
from cocos.crypto.kek import Wrapped, WrapType
from cocos.errors import CallerError, ConfigError, FormatError, IntegrityError, NotFoundError
from cocos.host.offline_fs import OfflineResources
from cocos.keyprovider.config import Settings
from cocos.keyprovider.service import KeyProvider
from cocos.wire import ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourceUri

KEY = bytes(range(32))
URI = ResourceUri.parse("kbs:///default/key/1")
OPTIONS = encode(
    {
        "symkey": bytes(32),
        "digest": "sha256:" + "0" * 64,
        "cipheroptions": {"nonce": bytes(16)},
    }
)


def provider(folder: Path, *, insecure_ctr: bool | None = None) -> KeyProvider:
    files = [folder / "absent.json", folder / "keys.json", folder / "later.json"]
    if insecure_ctr is None:
        return KeyProvider(resources=OfflineResources(files))
    return KeyProvider(resources=OfflineResources(files), insecure_ctr=insecure_ctr)


def write(file: Path, **resources: bytes) -> None:
    members = {f"default/key/{name[1:]}": value for name, value in resources.items()}
    file.write_text(json.dumps({k: base64.b64encode(v).decode() for k, v in members.items()}))


async def wrap(own: KeyProvider, parameter: str) -> bytes:
    reply = await own.wrap(ocicrypt.wrap_input(OPTIONS, [parameter]))
    return ocicrypt.parse_wrap_output(reply)


async def unwrap(own: KeyProvider, packet: bytes, parameter: str = "offline_fs_kbc::null") -> bytes:
    reply = await own.unwrap(ocicrypt.unwrap_input(packet, [parameter]))
    return ocicrypt.parse_unwrap_output(reply)


def v2(packet: bytes, **change: object) -> bytes:
    more = {"version": "0.1.0", "provider": "kbs", "provider_settings": {}, "annotations": {}}
    return json.dumps({**json.loads(packet), **more, **change}).encode()


async def test_keys_of_files_open_packets_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path / "keys.json", k1=bytes(32), k2=KEY)
    write(tmp_path / "later.json", k1=KEY)
    own = provider(tmp_path)
    for form in ("/default/key/1", "kbs.example/default/key/1", f"{URI}", "default/key/1"):
        packet = await wrap(own, f"keyid={form}")
        assert json.loads(packet)["kid"] == str(URI), "never stored in a form that cannot be read"
        # The later file wins.
        assert kek.unwrap(KEY, ocicrypt.Packet.parse(packet).wrapped, "it") == OPTIONS
        assert await unwrap(own, packet) == OPTIONS
        assert await unwrap(own, v2(packet), "cc_kbc::null") == OPTIONS


async def test_a_new_key_is_used_at_once_and_a_missing_one_named(tmp_path: Path) -> None:
    own = provider(tmp_path)
    packet = ocicrypt.Packet(URI, kek.wrap(KEY, OPTIONS)).encode()
    with pytest.raises(NotFoundError, match=r"kbs:///default/key/1 in .*keys\.json"):
        await unwrap(own, packet)
    write(tmp_path / "keys.json", k1=KEY)
    assert await unwrap(own, packet) == OPTIONS
    with pytest.raises(NotFoundError):
        await unwrap(own, v2(packet, kid="kbs+pkcs11:///default/key/1"))
    with pytest.raises(CallerError, match="takes resources from files"):
        await unwrap(own, packet, "cc_kbc::http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "malformed"),
        ('{"default/key/1": "no base64"}', "default/key/1 is not base64"),
        ('{"default/key/1": 1}', "malformed"),
        ('{"default/key/1": "eHg="}', "2 bytes long, not 32"),
    ],
)
async def test_a_bad_file_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(FormatError, match=words):
        await unwrap(provider(tmp_path), ocicrypt.Packet(URI, kek.wrap(KEY, OPTIONS)).encode())


async def test_a_packet_turned_into_ctr_is_refused(tmp_path: Path) -> None:
    """A256GCM is A256CTR from its second block on; without the tag changes go unnoticed."""
    write(tmp_path / "keys.json", k1=KEY)
    wrapped = kek.wrap(KEY, OPTIONS)
    changed = bytearray(wrapped.data[:-16])
    position = OPTIONS.index(b"sha256:") + 10
    changed[position] ^= 1
    turned = Wrapped(WrapType.A256CTR, wrapped.iv + b"\0\0\0\2", bytes(changed))
    packet = ocicrypt.Packet(URI, turned).encode()
    # What the attack would give: private options that the attacker has changed.
    assert len(kek.unwrap(KEY, turned, "it")) == len(OPTIONS)
    for form in (packet, v2(packet)):
        with pytest.raises(IntegrityError, match="A256CTR, which shows no change"):
            await unwrap(provider(tmp_path), form)
    assert await unwrap(provider(tmp_path, insecure_ctr=True), packet) != OPTIONS


async def test_ctr_by_its_insecure_name_only(tmp_path: Path) -> None:
    write(tmp_path / "keys.json", k1=KEY)
    with pytest.raises(IntegrityError, match="A256CTR") as caught:
        await wrap(provider(tmp_path), f"keyid={URI}::algorithm=A256CTR")
    assert "--insecure-ctr" in (caught.value.hint or "")
    own = provider(tmp_path, insecure_ctr=True)
    packet = await wrap(own, f"algorithm=A256CTR::keyid={URI}")
    members = json.loads(packet)
    assert members["wrap_type"] == "A256CTR"
    assert len(base64.b64decode(members["iv"])) == 16
    assert await unwrap(own, packet) == OPTIONS


@pytest.mark.parametrize("provider_name", ["aliyun", "aws", "ehsm", "x" * 10**5])
async def test_cloud_key_services_are_refused_by_name(tmp_path: Path, provider_name: str) -> None:
    packet = v2(ocicrypt.Packet(URI, kek.wrap(KEY, OPTIONS)).encode(), provider=provider_name)
    with pytest.raises(FormatError, match=f"service '{provider_name[:50]}'") as caught:
        await unwrap(provider(tmp_path), packet)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{}", "keyunwrapparams"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 2**20, "malformed"),
        (b'{"op":"keyunwrap","keyunwrapparams":{"annotation":"%s"}}' % (b"A" * 2**20), "packet"),
        (b'{"keyunwrapparams":{"annotation":"!"}}', "base64"),
        (b'{"keyunwrapparams":{"dc":{"Parameters":{"attestation-agent":["/w=="]}}}}', "annotation"),
        (
            b'{"keyunwrapparams":{"annotation":"","dc":{"Parameters":{"attestation-agent":["/w=="]}}}}',
            "UTF-8",
        ),
    ],
)
async def test_bad_input_is_the_callers_fault(tmp_path: Path, document: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        await provider(tmp_path).unwrap(document)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([], "no parameters for attestation-agent"),
        (["Enabled", "Enabled"], "to one key, not to 2"),
        (["keypath=/etc/passwd::keyid=kbs:///a/b/c"], "bytes long, not 32"),
        (["algorithm=A128GCM"], "unknown algorithm"),
    ],
)
async def test_wrap_parameters_that_make_no_sense(
    tmp_path: Path, parameters: list[str], words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        await provider(tmp_path).wrap(ocicrypt.wrap_input(OPTIONS, parameters))


async def test_many_at_once(tmp_path: Path) -> None:
    write(tmp_path / "keys.json", k1=KEY)
    own = provider(tmp_path)
    packet = ocicrypt.Packet(URI, kek.wrap(KEY, OPTIONS)).encode()
    assert await asyncio.gather(*(unwrap(own, packet) for _ in range(200))) == [OPTIONS] * 200


def load(**members: object) -> Settings:
    return load_settings(Settings, members=members, flags={})


def test_nothing_insecure_by_default() -> None:
    settings = load()
    assert not settings.insecure_ctr
    assert not settings.insecure_sample
    assert not settings.offline, "files of the machine are keys only when somebody says so"


def test_files_only_when_they_are_asked_for() -> None:
    assert load(aa_kbc_params="offline_fs_kbc::null").offline
    assert load(aa_kbc_params="cc_kbc::http://[::1]:8080").address == "http://[::1]:8080"
    assert load(aa_kbc_params="cc_kbc::null").address is None
    assert load(aa_kbc_params="cc_kbc::null", kbs="http://x").address == "http://x"
    with pytest.raises(ConfigError, match="aa_kbc_params"):
        load(aa_kbc_params="eaa_kbc::http://x")
