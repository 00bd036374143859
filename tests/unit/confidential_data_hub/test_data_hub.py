# SPDX-License-Identifier: Apache-2.0
"""Sealed secrets, on resources of files."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from cocos.cli._common import load_settings
from cocos.confidential_data_hub import credentials
from cocos.confidential_data_hub.config import CREDENTIALS, ConfigFile, Credential, Settings
from cocos.confidential_data_hub.service import DataHub
from cocos.crypto import kek
from cocos.crypto.kek import WrapType
from cocos.crypto.signing import SigningKey
from cocos.errors import (
    AuthenticationError,
    CocosError,
    ConfigError,
    FormatError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
)
from cocos.host.offline_fs import OfflineResources
from cocos.wire import sealed_secret
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.sealed_secret import Envelope, Vault

OWNER = SigningKey.generate()
KEY = bytes(range(32))
KID = "kbs:///default/signing-key/owner"
SECRET = b"the secret"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def envelope(kind: WrapType = WrapType.A256GCM, **change: Any) -> Envelope:
    data_key = kek.generate()
    wrapped = kek.wrap(data_key, SECRET, kind)
    members = {
        "key_id": "kbs:///default/key/1",
        "encrypted_key": b64(kek.wrap_key(KEY, data_key)),
        "encrypted_data": b64(wrapped.data),
        "wrap_type": kind.value,
        "iv": b64(wrapped.iv),
    }
    return Envelope(**{**members, **change})


VAULT = Vault(name="kbs:///default/secret/1")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    public = json.dumps(OWNER.public_jwk()).encode()
    resources = {
        "default/secret/1": SECRET,
        "default/key/1": KEY,
        "default/signing-key/owner": public,
        "default/signing-key/private": json.dumps(
            {**OWNER.public_jwk(), "d": "AAAA-the-private-part"}
        ).encode(),
        "default/signing-key/none": b"neither JSON nor short of secrets",
    }
    file = tmp_path / "resources.json"
    file.write_text(json.dumps({path: b64(data) for path, data in resources.items()}))
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "owner.jwk").write_bytes(public)
    return tmp_path


def hub(files: Path, **flags: bool) -> DataHub:
    return DataHub(OfflineResources([files / "resources.json"]), keys=files / "keys", **flags)


def sealed(payload: Vault | Envelope = VAULT, key: SigningKey = OWNER, kid: str = KID) -> bytes:
    return sealed_secret.seal(payload, key, kid).encode()


@pytest.mark.parametrize("kid", [KID, "owner.jwk"])
@pytest.mark.parametrize("payload", [VAULT, envelope()], ids=["vault", "envelope"])
async def test_both_forms_and_both_places_of_the_key(
    files: Path, payload: Vault | Envelope, kid: str
) -> None:
    text = sealed(payload, kid=kid)
    assert text.startswith(b"sealed.")
    assert await hub(files).unseal(text) == SECRET
    assert await hub(files).unseal(b" " + text + b"\n") == SECRET


async def test_a_stranger_cannot_choose_what_a_secret_says(files: Path) -> None:
    with pytest.raises(AuthenticationError, match="expected key"):
        await hub(files).unseal(sealed(key=SigningKey.generate()))
    head, _, signature = sealed().removeprefix(b"sealed.").split(b".")
    other = sealed(Vault(name="kbs:///default/key/1")).split(b".")[2]
    with pytest.raises(AuthenticationError):
        await hub(files).unseal(b".".join([b"sealed", head, other, signature]))
    # Without a signature, or with an algorithm that needs none.
    for header in ({"alg": "none", "kid": KID}, {"alg": "HS256", "kid": KID}, {"kid": KID}):
        part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=")
        for end in (signature, b""):
            with pytest.raises(AuthenticationError):
                await hub(files).unseal(b".".join([b"sealed", part, other, end]))


@pytest.mark.parametrize(
    ("kid", "kind", "words"),
    [
        ("kbs:///default/signing-key/absent", NotFoundError, "absent"),
        ("absent.jwk", NotFoundError, "absent.jwk"),
        ("../resources.json", FormatError, "no key id"),
        ("..", FormatError, "no key id"),
        ("/etc/passwd", FormatError, "no key id"),
        ("a\0b", FormatError, "no key id"),
        ("x" * 300, FormatError, "no key id"),
        ("kbs:///default/signing-key/private", FormatError, "private key"),
        ("kbs:///default/signing-key/none", FormatError, "no JWK"),
        ("kbs:///default/key/1", FormatError, "no JWK"),
    ],
)
async def test_keys_that_cannot_verify(
    files: Path, kid: str, kind: type[CocosError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await hub(files).unseal(sealed(kid=kid))
    shown = f"{caught.value.message} {caught.value.__cause__!r}"
    assert "secrets" not in shown.replace("seal secrets", "")
    assert "private-part" not in shown


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (envelope(encrypted_key=b64(bytes(40))), IntegrityError, "does not open with the key kbs:"),
        (envelope(encrypted_key=b64(bytes(3))), IntegrityError, "does not open"),
        (envelope(encrypted_key="!"), FormatError, "base64"),
        (envelope(encrypted_data=b64(bytes(40))), IntegrityError, "does not open"),
        (envelope(encrypted_data=b64(b"x")), FormatError, "too short"),
        (envelope(iv=b64(bytes(16))), FormatError, "16 bytes long, not 12"),
        (envelope(wrap_type="ROT13"), FormatError, "ROT13"),
        (envelope(wrap_type="A256CTR"), IntegrityError, "A256CTR"),
        (envelope(key_id="kbs:///default/key/2"), NotFoundError, "key/2"),
        (envelope(key_id="kbs:///default/secret/1"), FormatError, "10 bytes long, not 32"),
        (envelope(key_id="alias/key"), FormatError, "alias/key"),
        (envelope(provider="ehsm"), UnsupportedError, "ehsm"),
        (envelope(version="0.2.0"), FormatError, "0.2.0"),
        (Vault(name="kbs:///default/secret/2"), NotFoundError, "secret/2"),
        (Vault(name="secret"), FormatError, "secret"),
        (Vault(name=VAULT.name, provider="AWS"), UnsupportedError, "AWS"),
    ],
)
async def test_payloads_that_do_not_open(
    files: Path, payload: Vault | Envelope, kind: type[CocosError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await hub(files).unseal(sealed(payload))


@pytest.mark.parametrize("name", ["KBS", "Kbs", "kbs"])
async def test_names_of_key_services_in_any_case(files: Path, name: str) -> None:
    assert await hub(files).unseal(sealed(Vault(name=VAULT.name, provider=name))) == SECRET


async def test_ctr_and_unverified_by_their_insecure_names_only(files: Path) -> None:
    ctr = sealed(envelope(WrapType.A256CTR))
    assert await hub(files, insecure_ctr=True).unseal(ctr) == SECRET
    unsigned = sealed(key=SigningKey.generate(), kid="nobody")
    unsigned = unsigned.rpartition(b".")[0] + b"."
    with pytest.raises(CocosError):
        await hub(files).unseal(unsigned)
    assert await hub(files, insecure_unverified=True).unseal(unsigned) == SECRET


@pytest.mark.parametrize(
    "text",
    [b"", b"sealed.", b"sealed.a.b", b"sealed.a.b.c.d", b"a.b.c", b"x" * 2**21, b"sealed.\xff.b.c"],
)
async def test_what_is_no_sealed_secret(files: Path, text: bytes) -> None:
    for own in (hub(files), hub(files, insecure_unverified=True)):
        with pytest.raises(FormatError) as caught:
            await own.unseal(text)
        assert len(caught.value.message) < 300


async def test_resources_by_their_uri(files: Path) -> None:
    assert await hub(files).resource("kbs:///default/secret/1") == SECRET
    assert await hub(files).resource("kbs://host:1/default/secret/1") == SECRET
    for uri in ("default/secret/1", "http://x/a", "kbs+:///a/b/c", ""):
        with pytest.raises(FormatError):
            await hub(files).resource(uri)


# Settings

PEM = trustme.CA().cert_pem.bytes().decode()
OTHER = "cc_kbc::http://y"
FILE = """
socket = "unix:///run/x.sock"
skip_sealed_secret_verification = false
[aa]
aa_socket = "unix:///run/aa.sock"
[kbc]
name = "cc_kbc"
url = "https://127.0.0.1:8080/"
kbs_cert = '''CERT'''
[[credentials]]
resource_uri = "kbs:///default/secret/1"
path = "/run/confidential-containers/cdh/kbs/a/b"
[image]
work_dir = "/run/image-rs"
[log]
level = "debug"
"""


def test_the_guest_components_file(tmp_path: Path) -> None:
    file = tmp_path / "cdh.toml"
    file.write_text(FILE.replace("CERT", PEM))
    settings = load_settings(Settings, flags=dict(load_settings(ConfigFile, file=file, flags={})))
    source = settings.source()
    assert source is not None
    assert source.kbs == KbsAddress.parse("https://127.0.0.1:8080").with_ca(PEM)
    assert settings.aa.aa_socket == "unix:///run/aa.sock"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"skip_sealed_secret_verification": True}, "insecure"),
        ({"kbc": {"name": "cc_kbc"}}, "url"),
        ({"kbc": {"name": "eaa_kbc"}}, "kbc.name"),
        ({"kbc": {"name": "cc_kbc", "url": "ftp://x"}}, "kbc.url"),
        ({"kbc": {"name": "cc_kbc", "url": "http://x", "kbs_cert": PEM}}, "certificate"),
        ({"kbc": {"name": "cc_kbc", "url": "http://x"}, "aa_kbc_params": OTHER}, "different"),
        ({"kbc": {"name": "offline_fs_kbc"}, "aa_kbc_params": OTHER}, "different"),
        ({"socket": "0.0.0.0:50000"}, "socket"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_settings_that_are_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings(Settings, members=flags, flags={})


@pytest.mark.parametrize(
    ("params", "name"),
    [("cc_kbc::http://x", "cc_kbc"), ("offline_fs_kbc::null", "offline_fs_kbc"), (None, None)],
)
def test_without_kbc_the_parameters_count(params: str | None, name: str | None) -> None:
    source = load_settings(Settings, flags={"aa_kbc_params": params}).source()
    assert (source.kbc if source else None) == name


@pytest.mark.parametrize(
    "path",
    [
        *["/etc/passwd", "/run/confidential-containers/cdh/kbs", "kbs/a"],
        *["/run/confidential-containers/cdh/kbs/../x", "/run/confidential-containers/cdh/kbsx/a"],
    ],
)
def test_credentials_stay_in_their_folder(path: str) -> None:
    credential = {"resource_uri": "kbs:///a/b/c", "path": path}
    with pytest.raises(ConfigError, match="credentials"):
        load_settings(Settings, members={"credentials": [credential]}, flags={})


async def test_credentials_are_files_for_their_owner_only(files: Path) -> None:
    line = f"quiet cdh.kbs_resources=kbs:///default/secret/1::{CREDENTIALS}/a/b,"
    (found,) = credentials.of_command_line(line)
    resources = OfflineResources([files / "resources.json"])
    await credentials.write([Credential.model_validate(found)], resources, files / "root")
    file = files / "root" / "a" / "b"
    assert file.read_bytes() == SECRET
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FormatError, match="URI::PATH"):
        credentials.of_command_line("cdh.kbs_resources=kbs:///a/b/c")
    assert credentials.of_command_line("quiet") == []
