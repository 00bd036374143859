# SPDX-License-Identifier: Apache-2.0
"""The real program: started, attested to, stopped, killed."""

import asyncio
import base64
import contextlib
import json
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from _programs import running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cocos._clock import system_clock
from cocos.attesters.sample import InsecureSampleAttester
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto import admin_jwt, jwk, jwt
from cocos.errors import AccessDeniedError, AuthenticationError, NotFoundError
from cocos.host import process
from cocos.host.machines import swtpm
from cocos.wire import audit
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = [pytest.mark.integration, pytest.mark.programs]

KBS = Path(sys.executable).with_name("kbs")
PATH = ResourcePath.parse("default/key/algo-key")
URI = ResourceUri.parse(PATH.uri)
SECRET = bytes(range(32))


class Program:
    """A running `kbs` and its address."""

    def __init__(self, child: asyncio.subprocess.Process, url: str) -> None:
        self.child = child
        self.url = url


class Operator:
    """Who starts the KBS: a folder with the admin's keys and the storage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = ed25519.Ed25519PrivateKey.generate()
        self.private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.public_file = folder / "kbs-admin.pub"
        self.public_file.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @contextlib.asynccontextmanager
    async def start(self, *flags: str) -> AsyncIterator[Program]:
        argv: list[str | Path] = [
            KBS,
            "--json",
            "--socket",
            "127.0.0.1:0",
            "--storage",
            str(self.folder / "storage"),
            *flags,
        ]
        with (self.folder / "kbs.log").open("ab") as log:
            async with process.spawn(
                argv, stdout=asyncio.subprocess.PIPE, stderr=log.fileno()
            ) as child:
                assert child.stdout is not None
                line = await child.stdout.readline()
                assert line, self.log()
                yield Program(child, json.loads(line)["listening"])

    def plain(self, *flags: str) -> contextlib.AbstractAsyncContextManager[Program]:
        return self.start(
            "--insecure-http",
            "--auth-public-key",
            str(self.public_file),
            "--attestation-token-type",
            "CoCo",
            *flags,
        )

    def admin(self, url: str, **more: Any) -> KbsAdmin:
        token = admin_jwt.mint(self.private, now=system_clock())
        return KbsAdmin(url, token=token, **more)

    def log(self) -> str:
        return (self.folder / "kbs.log").read_text("utf-8")


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


async def test_a_guest_gets_its_key_over_http(operator: Operator) -> None:
    async with operator.plain("--insecure-allow-sample") as kbs:
        assert kbs.url.startswith("http://127.0.0.1:")
        async with operator.admin(kbs.url) as admin:
            await admin.set_resource(PATH, SECRET)
        async with KbsClient(kbs.url, InsecureSampleAttester()) as guest:
            assert await guest.get_resource(URI) == SECRET
            with pytest.raises(NotFoundError, match="default/key/unknown"):
                await guest.get_resource(ResourceUri.parse("kbs:///default/key/unknown"))
        async with operator.admin(kbs.url) as admin:
            await admin.set_resource_policy("package policy\nimport rego.v1\nallow := false\n")
        async with KbsClient(kbs.url, InsecureSampleAttester()) as guest:
            with pytest.raises(AccessDeniedError) as denied:
                await guest.get_resource(URI)
        denial = (denied.value.hint or "").rpartition(" ")[2]
        async with operator.admin(kbs.url) as admin:
            explained = await admin.explain(denial)
        assert explained["step"] == f"GET /kbs/v0/resource/{PATH}"
        assert denial in operator.log()
        kbs.child.send_signal(signal.SIGTERM)
        assert await kbs.child.wait() == 0
    assert "INSECURE" in operator.log().upper()
    assert base64.b64encode(SECRET).decode() not in operator.log()


async def test_sample_evidence_is_refused_by_default(operator: Operator) -> None:
    async with operator.plain() as kbs, KbsClient(kbs.url, InsecureSampleAttester()) as guest:
        with pytest.raises(AuthenticationError, match="--insecure-allow-sample"):
            await guest.get_resource(URI)


def certify(folder: Path) -> Path:
    """Write kbs.key and kbs.crt, and return the file of their CA."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "kbs.key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "kbs.crt", append=True)
    return folder / "ca.pem"


async def test_a_guest_gets_its_key_over_https(operator: Operator) -> None:
    folder, ca = operator.folder, certify(operator.folder)
    async with operator.start(
        "--auth-public-key",
        str(operator.public_file),
        "--certificate",
        str(folder / "kbs.crt"),
        "--private-key",
        str(folder / "kbs.key"),
        "--insecure-allow-sample",
    ) as kbs:
        assert kbs.url.startswith("https://")
        async with operator.admin(kbs.url, ca_file=ca) as admin:
            await admin.set_resource(PATH, SECRET)
        async with KbsClient(kbs.url, InsecureSampleAttester(), ca_file=ca) as guest:
            assert await guest.get_resource(URI) == SECRET
        kbs.child.send_signal(signal.SIGINT)
        assert await kbs.child.wait() == 0


async def test_flags_and_a_file_of_the_first_releases(operator: Operator) -> None:
    folder, ca = operator.folder, certify(operator.folder)
    (folder / "kbs.json").write_text(
        json.dumps(
            {
                "repository_config": {"type": "LocalFs", "dir_path": str(folder / "repository")},
                "as_config": {
                    "work_dir": str(folder / "as"),
                    "policy_engine": "opa",
                    "attestation_token_broker": "Simple",
                    "attestation_token_config": {"duration_min": 9},
                },
            }
        )
    )
    words: list[str | Path] = ["-s", "127.0.0.1:0", "-t", "7", "-p", folder / "kbs.key", "-i"]
    words += ["--certificate", folder / "kbs.crt", "-c", folder / "kbs.json"]
    async with running("kbs", *words, "--insecure-allow-sample") as kbs:
        assert kbs.address.startswith("https://127.0.0.1:")
        assert "INSECURE-API" in kbs.text
        assert "work_dir" in kbs.text
        async with KbsAdmin(kbs.address, token=None, ca_file=ca) as admin:
            await admin.set_resource(PATH, SECRET)
        async with KbsClient(kbs.address, InsecureSampleAttester(), ca_file=ca) as guest:
            assert await guest.get_resource(URI) == SECRET
            token = (await guest.session()).token
        trusted = ssl.create_default_context(cafile=ca)
        async with httpx.AsyncClient(base_url=kbs.address, verify=trusted) as http:
            begun = await http.post(
                "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample", "extra-params": ""}
            )
    claims = jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)
    assert claims["exp"] - claims["iat"] == 9 * 60
    cookie = SimpleCookie(begun.headers["set-cookie"])["kbs-session-id"]
    lifetime = parsedate_to_datetime(cookie["expires"]) - system_clock()
    assert 6 * 60 < lifetime.total_seconds() <= 7 * 60
    assert (folder / "repository" / "cocos.sqlite3").exists()


async def test_the_guide_s_checks_by_plain_http(operator: Operator) -> None:
    async with operator.plain() as kbs, httpx.AsyncClient(base_url=kbs.url) as http:
        alive = await http.get("/kbs/v0/auth")
        assert (alive.status_code, alive.headers["allow"]) == (405, "POST")
        assert "alive" in alive.json()["detail"]
        unsigned = await http.post(
            f"/kbs/v0/resource/{PATH}", headers={"Authorization": "Bearer e30="}, content=SECRET
        )
        assert unsigned.status_code == 401
        assert "kbs-client admin-token" in unsigned.json()["hint"]
        for path in ("/kbs/v0/resource/../../etc", "/kbs/v0/resource/a/%2e%2e/c"):
            raw = httpx.URL(kbs.url).copy_with(raw_path=path.encode())
            assert (await http.get(raw)).status_code in {400, 404}
        large = await http.post("/kbs/v0/auth", content=bytes(10 * 2**20))
        assert large.status_code == 413
        assert (await http.get("/healthz")).status_code == 200
        assert "kbs_build_info" in (await http.get("/metrics")).text


async def test_insecure_api_needs_no_token(operator: Operator) -> None:
    async with (
        operator.start("--insecure-http", "--insecure-api") as kbs,
        KbsAdmin(kbs.url, token=None) as admin,
    ):
        await admin.set_resource(PATH, SECRET)
    assert "INSECURE-API" in operator.log()


def token_key(operator: Operator, *command: str) -> Any:
    storage = str(operator.folder / "storage")
    argv = [str(KBS), "--storage", storage, "token-key", *command, "--json"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", [["rekey"], ["token-key", "list"], ["token-key", "rotate"]])
def test_a_storage_that_is_not_there_is_not_made(tmp_path: Path, command: list[str]) -> None:
    argv = [str(KBS), "--storage", str(tmp_path / "typo"), *command]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert done.returncode == 78
    assert b"there is no storage at" in done.stderr
    assert b"--storage before the command" in done.stderr
    assert not (tmp_path / "typo").exists()


async def test_token_keys_change_under_programs_that_serve(operator: Operator) -> None:
    flag = "--insecure-allow-sample"
    async with (
        operator.plain(flag) as here,
        operator.plain(flag) as there,
        httpx.AsyncClient() as http,
        KbsClient(here.url, InsecureSampleAttester()) as guest,
    ):
        async with operator.admin(there.url) as admin:
            await admin.set_resource(PATH, SECRET)
        session = await guest.session()
        bearer = {"Authorization": f"Bearer {session.token}"}
        target = f"{there.url}/kbs/v0/resource/{PATH}"
        assert (await http.get(target, headers=bearer)).status_code == 200
        old = jwt.header_of(session.token)["kid"]
        new = token_key(operator, "rotate", "--lead", "86400")["kid"]
        listed = token_key(operator, "list")["keys"]
        assert [(key["kid"], key["signs"]) for key in listed] == [(old, True), (new, False)]
        assert (await http.get(target, headers=bearer)).status_code == 200
        token_key(operator, "revoke", old)
        async with asyncio.timeout(60):
            while (await http.get(target, headers=bearer)).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.5)  # they look again by themselves
        assert await guest.get_resource(URI) == SECRET
        keys = (await http.get(f"{there.url}/.well-known/jwks.json")).json()["keys"]
        assert old not in [key["kid"] for key in keys]
        assert len(keys) == 2
        async with operator.admin(here.url) as admin:
            assert (await admin.token_keys())["keys"] == keys
            events = [
                entry["event"] for entry in map(audit.decode, (await admin.audit_page(0)).records)
            ]
        assert {"token-key-published", "token-key-revoked"} < set(events)


HOSTILE = """package policy
import rego.v1
allow := true if {
	input.submods
	x := numbers.range(1, 3000)
	count([1 | some a in x; some b in x; some c in x; a + b == c]) == 0
}
"""


async def test_a_hostile_policy_hurts_its_own_resources_only(operator: Operator) -> None:
    other = ResourcePath.parse("other/key/1")
    async with operator.plain("--insecure-allow-sample") as kbs:
        async with operator.admin(kbs.url) as admin:
            for path in (PATH, other):
                await admin.set_resource(path, SECRET)
            await admin.set_resource_policy(HOSTILE, f"resource/{PATH.repository}")
        guests = [KbsClient(kbs.url, InsecureSampleAttester()) for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            for guest in guests:
                await stack.enter_async_context(guest)
                await guest.attest()
            *hurt, well = guests
            tasks = [asyncio.create_task(guest.get_resource(URI)) for guest in hurt]
            while not all(task.done() for task in tasks):
                assert await well.get_resource(ResourceUri.parse(other.uri)) == SECRET
            for task in tasks:
                assert isinstance(task.exception(), AccessDeniedError)
    assert "policy.worker-ended" in operator.log()


async def test_sessions_survive_kill_9(operator: Operator) -> None:
    port = "0"
    async with contextlib.AsyncExitStack() as stack:
        guest: KbsClient | None = None
        for _ in range(2):
            async with operator.plain("--insecure-allow-sample", "-s", f"127.0.0.1:{port}") as kbs:
                assert kbs.child.stdout is not None
                second = json.loads(await kbs.child.stdout.readline())["listening"]
                port = second.rpartition(":")[2]
                if guest is None:
                    async with operator.admin(kbs.url) as admin:
                        await admin.set_resource(PATH, SECRET)
                    guest = await stack.enter_async_context(
                        KbsClient(second, InsecureSampleAttester())
                    )
                    token = await guest.attest()
                assert await guest.get_resource(URI) == SECRET
                assert await guest.attest() == token
                kbs.child.kill()
                await kbs.child.wait()


async def test_the_storage_is_the_owner_s_alone(operator: Operator) -> None:
    async with operator.plain():
        folder = operator.folder / "storage"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--insecure-api"], "openssl req -x509"),
        (["--insecure-http"], "openssl genpkey -algorithm ed25519"),
        (["--insecure-http", "--auth-public-key", "/nowhere"], "/nowhere"),
        (["--insecure-http", "--insecure-api", "--socket", "192.0.2.1:1"], "192.0.2.1:1"),
        (["--insecure-http", "--insecure-api", "--storage", "mysql://x"], "mysql"),
        (["--insecure-http", "--insecure-api", "--storage", "postgresql://a:b@h/d"], "KBS_STORAGE"),
        (["--insecure-http", "--insecure-api", "--session-storage", "redis://:b@h"], "_SESSION_S"),
        (["--insecure-http", "--insecure-api", "--session-storage", "http://h"], "redis://"),
        (["--insecure-http", "--insecure-api", "--config-file", "/nowhere"], "/nowhere"),
        (["--insecure-http", "--insecure-api", "--attestation-token-type", "X"], "-token-type"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, flags: list[str], said: str) -> None:
    done = subprocess.run(
        [KBS, "--storage", str(tmp_path / "storage"), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in {0, 70}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


async def test_tpms_whose_maker_is_in_doubt_stop_the_start(operator: Operator) -> None:
    folder = operator.folder
    made = swtpm.TpmCa(folder / "ca")
    made.make(system_clock())
    manager, vendor, none = made.certificate_file, folder / "vendor.pem", folder / "none"
    vendor.write_bytes(trustme.CA().cert_pem.bytes())
    junk, empty, listed = (folder / name for name in ("junk", "empty", "listed"))
    for file, text in ((junk, "junk"), (empty, "# nobody\n"), (listed, "ab" * 32)):
        file.write_text(text)
    allow: list[str | Path] = ["--tpm-vendor-ca", vendor, "--tpm-ek-allow"]
    cases: list[tuple[list[str | Path], Path | str, str]] = [
        (["--tpm-ek-ca", junk], junk, "no certificates"),
        (["--tpm-ek-ca", manager, "--tpm-ek-ca", vendor], vendor, "--tpm-vendor-ca"),
        (["--tpm-ek-ca", manager, "--tpm-vendor-ca", manager], manager, "is a manager's CA"),
        ([*allow, empty], empty, "names no endorsement key"),
        ([*allow, listed, "--tpm-ek-allow", junk], junk, "line 1"),
        (["--tpm-ek-ca", manager, "--tpm-ek-allow", listed], "--tpm-vendor-ca", "allowed"),
    ]
    flags: list[str | Path] = ["--storage", folder / "store", "--socket", "127.0.0.1:0"]
    for given, named, words in cases:
        argv = [KBS, *flags, "--insecure-http", "--insecure-api", *given]
        done = await process.run(argv, check=False, timeout=60)
        said = done.stderr.decode()
        assert (done.exit_status, str(named) in said, words in said) == (78, True, True), said
    argv = [KBS, *flags, "--insecure-http", "--insecure-api", "--tpm-ek-ca", none]
    done = await process.run(argv, check=False, timeout=60)
    assert (done.exit_status, f"{none} is not there" in done.stderr.decode()) == (66, True)
    argv = [KBS.with_name("grpc-as"), *flags, "--tpm-ek-ca", vendor]
    done = await process.run(argv, check=False, timeout=60)
    assert (done.exit_status, b"--tpm-vendor-ca" in done.stderr) == (78, True)
