# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli encrypt`` as its user calls it."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from _layouts import gzipped, tar, write
from _programs import running
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cocos.crypto import kek
from cocos.host import process
from cocos.host.images import skopeo
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.wire import oci, ocicrypt
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo-key")
CLI = Path(sys.executable).parent / "cocos-cli"
LAYERS = [tar("a", b"x"), tar("b", os.urandom(2**16))]


@pytest.fixture
def plain(tool: Skopeo, tmp_path: Path) -> str:  # the command finds the same Skopeo
    write(tmp_path / "plain", [gzipped(layer) for layer in LAYERS])
    return f"oci:{tmp_path}/plain"


async def encrypt(*arguments: str | Path, check: bool = True) -> dict[str, Any]:
    """Run the command with ``--json``; returns what it printed, or its error."""
    done = await process.run([CLI, "encrypt", *arguments, "--key", str(KEY), "--json"], check=False)
    assert (done.exit_status == 0) is check, done.stderr.decode()
    text = done.stdout if check else done.stderr.splitlines()[-1]
    answer: dict[str, Any] = json.loads(text)
    return answer


async def test_owner_without_a_daemon_and_a_guest(
    tool: Skopeo, plain: str, registry: str, tmp_path: Path
) -> None:
    """Key, registration and encryption in one; then a guest gets the key by attestation."""
    admin = Ed25519PrivateKey.generate()
    private, public = tmp_path / "admin.key", tmp_path / "admin.pub"
    private.write_bytes(admin.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        admin.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    remote = f"docker://{registry}/algo:v1"
    keys = tmp_path / "keys"
    flags = ["--insecure-http", "--insecure-allow-sample", "--socket", "127.0.0.1:0"]
    storage = ["--storage", str(tmp_path / "kbs"), "--auth-public-key", str(public)]
    async with running("kbs", *flags, *storage) as kbs:
        own = ["--kbs", kbs.address, "--keys", str(keys)]
        refused = await encrypt(plain, remote, *own, check=False)
        assert refused["error"] == "unauthenticated"
        assert KeyFolder(keys).read(KEY) is None  # or it would look like a registered one
        assert kbs.address in refused["message"]
        answer = await encrypt(plain, remote, *own, "--auth-private-key", private)
        assert answer["key"] == KEY.uri
        assert answer["registered_at"] == kbs.address
        assert KeyFolder(keys).path(KEY).stat().st_mode & 0o777 == 0o600
        stranger = ["--kbs", kbs.address, "--keys", str(tmp_path / "other-keys")]
        conflict = await encrypt(
            plain, remote, *stranger, "--auth-private-key", private, check=False
        )
        assert conflict["error"] == "wrong-state"
        assert "already has a key kbs:///default/key/algo-key" in conflict["message"]
        source = await tool.resolve(remote)
        assert source.digest == answer["digest"]
        assert source.manifest.config.digest == answer["config_digest"]
        skopeo.require_key(source, ResourceUri.parse(KEY.uri))
        config = tmp_path / "ocicrypt.json"
        guest = ["--socket", "127.0.0.1:0", "--kbs", kbs.address, "--insecure-sample"]
        async with running("coco-keyprovider", *guest) as program:
            config.write_bytes(ocicrypt.grpc_config(program.address))
            copied = await tool.copy(
                remote,
                f"oci:{tmp_path}/out",
                decryption_key="cc_kbc::null",
                keyprovider_config=config,
            )
    assert copied.image is not None
    assert [layer.diff_id for layer in copied.image.layers] == [oci.digest_of(x) for x in LAYERS]


async def test_the_same_key_again(plain: str, tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "keys")]
    first = await encrypt(plain, f"oci:{tmp_path}/one", *keys)
    before = KeyFolder(tmp_path / "keys").read(KEY)
    second = await encrypt(plain, f"oci:{tmp_path}/two", *keys)
    assert (first["key_made"], second["key_made"]) == (True, False)
    assert KeyFolder(tmp_path / "keys").read(KEY) == before
    assert first["digest"] != second["digest"]
    assert first["config_digest"] == second["config_digest"]


async def test_key_file(plain: str, tmp_path: Path) -> None:
    keys, file = ["--keys", str(tmp_path / "keys")], tmp_path / "algo.key"
    file.write_bytes(b"x" * 31)
    answer = await encrypt(plain, f"oci:{tmp_path}/out", *keys, "--key-file", file, check=False)
    assert "is 31 bytes long, not 32" in answer["message"]
    file.write_bytes(kek.generate())
    await encrypt(plain, f"oci:{tmp_path}/out", *keys, "--key-file", file)
    assert KeyFolder(tmp_path / "keys").read(KEY) == file.read_bytes()
    file.write_bytes(kek.generate())
    answer = await encrypt(plain, f"oci:{tmp_path}/out2", *keys, "--key-file", file, check=False)
    assert answer["error"] == "wrong-state"


async def test_image_encrypted_to_somebody_elses_key(plain: str, tmp_path: Path) -> None:
    await encrypt(plain, f"oci:{tmp_path}/theirs", "--keys", tmp_path / "their-keys")
    answer = await encrypt(
        f"oci:{tmp_path}/theirs", f"oci:{tmp_path}/out", "--keys", tmp_path / "keys", check=False
    )
    assert answer["error"] == "integrity"
    assert "is encrypted already" in answer["message"]
    assert KeyFolder(tmp_path / "keys").names() == []


async def test_nobody_there(plain: str, tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "keys")]
    answer = await encrypt(plain, "docker://localhost:1/x:v1", *keys, check=False)
    assert "the registry localhost:1 does not answer" in answer["message"]
    answer = await encrypt("docker://localhost:1/x:v1", plain, *keys, check=False)
    assert "the registry localhost:1 does not answer" in answer["message"]
    answer = await encrypt(
        plain, f"oci:{tmp_path}/x", *keys, "--kbs", "http://127.0.0.1:1", check=False
    )
    assert answer["error"] == "unreachable"
    assert "http://127.0.0.1:1" in answer["message"]


async def test_key_is_never_on_a_command_line(plain: str, tmp_path: Path) -> None:
    """Anybody may read the command lines of this machine's processes while it works."""
    store = KeyFolder(tmp_path / "keys")
    store.store(KEY, b"k" * 32)
    work = asyncio.create_task(encrypt(plain, f"oci:{tmp_path}/out", "--keys", str(store.folder)))
    lines = b""
    while not work.done():
        lines += await asyncio.to_thread(command_lines)
    await work
    assert b"--encryption-key" in lines
    assert b"k" * 32 not in lines


def command_lines() -> bytes:
    lines = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines += path.read_bytes()
    return lines
