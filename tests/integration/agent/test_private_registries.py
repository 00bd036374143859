# SPDX-License-Identifier: Apache-2.0
"""Images of private registries: credentials from the KBS, and whom they may reach."""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler as Request
from pathlib import Path

import pytest
import trustme
from _images import algorithm
from _kbs import admin_pair
from _lying_registry import lying_registry
from _programs import docker_registry, running

from cocos._clock import system_clock
from cocos._types import JsonObject
from cocos.agent.registries import KbsCredentials, reached
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import AuthenticationError, CocosError, ProtocolError
from cocos.host import process
from cocos.host.images import skopeo as skopeo_tools
from cocos.host.images.skopeo import Skopeo, registries_conf
from cocos.wire import oci
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

HOST = "127.0.0.2"  # loopback, but none of the names that may speak plain http
PASSWORD = "a pass:wörd"
HASH = "$2y$05$abcdefghijklmnopqrstuujeZ5lpa3lCt/DsduANQlj.PJk9TP5/W"  # of it, by bcrypt
LOGIN = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
PATH = ResourcePath.parse("default/credential/registry")


@dataclass
class Private:
    """A registry with TLS of a private CA, for alice only, with one image.

    Attributes:
        address: Host and port.
        url: Of the image.
        ca: Certificate of the CA, PEM.
    """

    address: str
    url: str
    ca: str

    def document(self, *, ca: bool = True, name: str = "") -> JsonObject:
        """What the owner keeps at the KBS."""
        certificates = {"extra_root_certificates": [self.ca]} if ca else {}
        return {"auths": {name or self.address: {"auth": LOGIN}}, **certificates}


@pytest.fixture
async def private(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Private]:
    folder = tmp_path / "registry"
    folder.mkdir()
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "tls.pem"))
    (folder / "htpasswd").write_text(f"alice:{HASH}\n")
    more = (
        f"  tls: {{certificate: {folder}/tls.pem, key: {folder}/tls.pem}}\n"
        f"auth: {{htpasswd: {{realm: r, path: {folder}/htpasswd}}}}\n"
    )
    algorithm(tmp_path / "algo", "echo from a private registry")
    argv = await skopeo_tools.find_registry()
    async with docker_registry(argv, folder, host=HOST, more=more) as address:
        found = Private(address, f"docker://{address}/algo:v1", authority.cert_pem.bytes().decode())
        auth = folder / "push.json"
        auth.write_text(json.dumps(found.document()))
        push = ["--dest-authfile", str(auth), "--dest-tls-verify=false"]
        words = ["--insecure-policy", "copy", "-q", *push, f"oci:{tmp_path}/algo", found.url]
        await process.run([*tool.argv, *words])
        yield found


@dataclass
class Kbs:
    """A KBS as a program, with one resource."""

    url: str
    admin: bytes

    async def keep(self, document: object) -> None:
        token = admin_jwt.mint(self.admin, now=system_clock())
        async with KbsAdmin(self.url, token=token) as admin:
            await admin.set_resource(PATH, json.dumps(document).encode())


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[Kbs]:
    private, public = admin_pair()
    (tmp_path / "admin.pub").write_bytes(public)
    flags: list[str | Path] = ["--insecure-http", "--insecure-allow-sample"]
    flags += ["--socket", "127.0.0.1:0", "--storage", tmp_path / "kbs"]
    flags += ["--auth-public-key", tmp_path / "admin.pub"]
    async with running("kbs", *flags) as program:
        yield Kbs(program.address, private)


async def run_agent(
    folder: Path, url: str, kbs: str, *, credentials: bool = True, ca: str = ""
) -> process.Completed:
    """Run a computation as a guest of the backend local does, by its variables."""
    document = {"computation_id": "1", "algorithm": {"uri": url}}
    (folder / "m.json").write_text(json.dumps(document))
    program = Path(sys.executable).parent / "cocos-agent"
    line: list[str | Path] = [program, "run", "-m", "m.json", "-r", "out", "--log-level", "debug"]
    async with running(
        "attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample"
    ) as attestation:
        env = {
            "COCOS_AA_ADDRESS": attestation.address,
            "AA_KBC_PARAMS": f"cc_kbc::{kbs}",
            "COCOS_INSECURE_WITHOUT_CGROUPS": "1",
            "COCOS_WORK_FOLDER": str(folder / "work"),
            **({"AUTHENTICATED_REGISTRY_CREDENTIALS_URI": PATH.uri} if credentials else {}),
            **({"EXTRA_ROOT_CERTIFICATES": ca} if ca else {}),
        }
        return await process.run(line, cwd=folder, env=env, check=False, timeout=120)


def secret_in(data: bytes) -> bool:
    return any(word in data for word in (PASSWORD.encode(), LOGIN.encode()))


def left_in(folder: Path) -> list[Path]:
    """Return the files that have the password: not the owner's registry, nor the KBS."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not {"registry", "kbs"} & set(path.parts)
        if secret_in(path.read_bytes())
    ]


async def test_an_image_of_a_private_registry_is_run(
    private: Private, kbs: Kbs, tmp_path: Path
) -> None:
    """With credentials and CA from the KBS; without, not; and nothing of it is said or left."""
    refused = await run_agent(tmp_path, private.url, kbs.url, credentials=False)
    assert refused.exit_status == 1
    assert b"certificate" in refused.stderr
    missing = await run_agent(tmp_path, private.url, kbs.url)
    assert missing.exit_status == 1
    assert f"the registries' credentials {PATH.uri}".encode() in missing.stderr
    await kbs.keep(private.document())
    done = await run_agent(tmp_path, private.url, kbs.url)
    assert done.exit_status == 0, done.stderr.decode()
    assert done.stdout == b"from a private registry\n"
    for output in (refused, missing, done):
        assert not secret_in(output.stdout + output.stderr)
    assert not await asyncio.to_thread(left_in, tmp_path)


async def test_a_ca_of_the_hosts_is_for_registries_without_credentials(
    private: Private, kbs: Kbs, tmp_path: Path
) -> None:
    """Else a host that names its own CA, and stands in between, would get the password."""
    host = tmp_path / "host-ca.pem"
    host.write_text(private.ca)
    anonymous = await run_agent(tmp_path, private.url, kbs.url, credentials=False, ca=str(host))
    assert b"wants other credentials" in anonymous.stderr  # its certificate was accepted
    await kbs.keep(private.document(ca=False))
    done = await run_agent(tmp_path, private.url, kbs.url, ca=str(host))
    assert done.exit_status == 1
    assert b"certificate" in done.stderr
    assert b"wants other credentials" not in done.stderr


class Static:
    """What a KBS gave, for tests of what is done with it."""

    def __init__(self, document: object) -> None:
        self.data = json.dumps(document).encode()

    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:  # noqa: ARG002
        return self.data


@contextlib.contextmanager
def eavesdropper() -> Iterator[tuple[str, list[str]]]:
    """A registry of the host's that asks everybody for a password; yields what it was told."""
    heard: list[str] = []

    def mood(request: Request) -> bool:
        heard.append(request.headers.get("Authorization", ""))
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Basic realm="r"')
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    with lying_registry() as registry:
        registry.mood = mood
        yield registry.address, heard


@pytest.mark.parametrize(
    "conf",
    [
        '[[registry]]\nlocation = "NAME"\ninsecure = true\n',
        '[[registry]]\nprefix = "registry.example"\nlocation = "NAME"\ninsecure = true\n',
        (
            '[[registry]]\nlocation = "registry.example"\n'
            '[[registry.mirror]]\nlocation = "NAME"\ninsecure = true\n'
        ),
    ],
    ids=["plain http", "another place", "a mirror"],
)
@pytest.mark.parametrize("named", ["NAME", "registry.example"])
async def test_nothing_of_the_hosts_leads_them_astray(
    tool: Skopeo, tmp_path: Path, conf: str, named: str
) -> None:
    with eavesdropper() as (address, heard):
        name = named.replace("NAME", address)
        registries = tmp_path / "registries.conf"
        registries.write_text(conf.replace("NAME", address))
        credentials = KbsCredentials(
            ResourceUri.parse(PATH.uri), Static({"auths": {name: {"auth": LOGIN}}})
        )
        reference = oci.Reference.parse(f"docker://{name}/algo:v1")
        host = replace(tool, registries=registries)
        async with reached(host, credentials, reference) as reaching:
            assert reaching.authfile is not None
            kept = reaching.authfile
            with pytest.raises(CocosError):
                await asyncio.wait_for(reaching.resolve(reference), 60)
        assert not kept.exists()
        assert not any(LOGIN in each for each in heard), "the host has the password"


async def test_another_registry_gets_nothing(tool: Skopeo, tmp_path: Path) -> None:
    with eavesdropper() as (address, heard):
        registries = tmp_path / "registries.conf"
        registries.write_text(registries_conf())
        document = {"auths": {"registry.example": {"auth": LOGIN}, f"{address}/x": {"auth": LOGIN}}}
        credentials = KbsCredentials(ResourceUri.parse(PATH.uri), Static(document))
        reference = oci.Reference.parse(f"docker://{address}/algo:v1")
        async with reached(tool, credentials, reference) as reaching:
            assert reaching == tool
            with pytest.raises((AuthenticationError, ProtocolError)):
                await reaching.resolve(reference)
        assert heard
        assert not any(LOGIN in each for each in heard)
