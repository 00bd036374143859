# SPDX-License-Identifier: Apache-2.0
"""The attestation agent of a VM, on the VM's Python, against a real TPM and a real KBS."""

import asyncio
import base64
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from _guest import GuestPython, guest_python
from _kbs import admin_pair
from _programs import running
from _tpm import TpmCa, b64, running_tpm
from _tpm_guest import INIT_DATA, Guest
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._clock import system_clock
from cocos.attestation_agent.event import record, tagged_event
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto import admin_jwt, base64url
from cocos.crypto.tpm_credential import make_credential
from cocos.errors import AuthenticationError, CallerError, IntegrityError, UnreachableError
from cocos.evidence.eventlog import parse_records, replay
from cocos.evidence.tpm import Quote, extend
from cocos.host import process
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri, Tee
from cocos.wire.manifest.event import ComputationEvent

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("tpm-guest")]

PATH = ResourcePath.parse("default/key/algo-key")
URI = ResourceUri.parse(PATH.uri)
OTHER_INIT_DATA = INIT_DATA.replace(b"host", b"thief")
CONTENT = ComputationEvent(
    algorithm="a" * 64,
    arguments="b" * 64,
    consumers="c" * 64,
    datasets=(),
    environment="d" * 64,
    kbs=("",),
    manifest="e" * 64,
).content()
POLICY = """package policy
import rego.v1
default hardware := 97
hardware := 2 if input.tpm.ak_trusted == "manager-ca"
trust_claims := {"hardware": hardware, "executables": 3, "configuration": 2}
"""
ONE_COMPUTATION = """package policy
import rego.v1
default allow := false
allow if {
    evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]
    count(evidence.tpm.computations) == 1
}
"""


@pytest.fixture(scope="module")
def python() -> GuestPython:
    return asyncio.run(guest_python())


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> TpmCa:
    return TpmCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def state(ca: TpmCa) -> Path:
    """A TPM as it came from the factory; every test starts from a copy."""
    return asyncio.run(ca.manufacture())


@pytest.fixture
async def guest(python: GuestPython, state: Path, tmp_path: Path) -> AsyncIterator[Guest]:
    own = Path(shutil.copytree(state, tmp_path / "state"))
    async with running_tpm(own, tmp_path / "vm") as tpm:
        yield Guest(python, tmp_path / "vm", tpm)


@contextlib.asynccontextmanager
async def running_kbs(
    folder: Path, *ek_cas: Path, policy: str | None = None, secret: bytes = b"secret"
) -> AsyncIterator[str]:
    """Have a KBS run that believes TPMs of these CAs; yields its URL."""
    folder.mkdir(parents=True)  # noqa: ASYNC240 - the test's own
    private, public = admin_pair()
    (folder / "admin.pub").write_bytes(public)
    flags: list[str | Path] = ["--insecure-http", "--socket", "127.0.0.1:0"]
    flags += ["--storage", folder / "db", "--auth-public-key", folder / "admin.pub"]
    for file in ek_cas:
        flags += ["--tpm-ek-ca", file]
    async with running("kbs", *flags) as program:
        token = admin_jwt.mint(private, now=system_clock())
        async with KbsAdmin(program.address, token=token) as admin:
            await admin.set_attestation_policy("default_cpu", POLICY)
            await admin.set_resource(PATH, secret)
            if policy is not None:
                await admin.set_resource_policy(policy)
        yield program.address


def claims_of(token: str) -> dict[str, Any]:
    payload = json.loads(base64url.decode(token.split(".")[1], "payload"))
    found: dict[str, Any] = payload["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    return found


async def test_a_vm_gets_its_key_and_the_claims_say_what_it_is(
    guest: Guest, ca: TpmCa, tmp_path: Path
) -> None:
    async with (
        running_kbs(tmp_path / "kbs", ca.certificate, policy=ONE_COMPUTATION) as kbs,
        guest.agent() as (agent, _),
    ):
        assert await agent.tee() is Tee.TPM
        assert await agent.extend_runtime_measurement("cocos", "computation", CONTENT) == "OK"
        async with KbsClient(kbs, agent) as client:
            assert await client.get_resource(URI) == b"secret"
            claims = claims_of(await client.attest())
    tpm = claims["tpm"]
    measured = extend(bytes(32), hashlib.sha256(INIT_DATA).digest()).hex()
    assert tpm["ak_trusted"] == "manager-ca"
    assert claims["init_data"] == tpm["pcr08"] == measured
    assert tpm["computation"] == {
        "manifest_digest": "e" * 64,
        "algorithm_digest": "a" * 64,
        "dataset_digests": [],
        "arguments_digest": "b" * 64,
        "environment_digest": "d" * 64,
        "consumers_digest": "c" * 64,
        "kbs": [""],
    }
    assert len(bytes.fromhex(claims["report_data"])) == 48
    assert tpm["pcr14"] == replay(parse_records(guest.log.read_bytes()), 14).hex()
    assert claims["init_data_claims"] == {"note": "from the host"}


async def test_every_byte_of_report_data_is_quoted(guest: Guest) -> None:
    async with guest.agent(init_data=None) as (agent, _):
        for size in (0, 32, 48, 64):
            data = os.urandom(size)
            evidence = await agent.evidence(data)
            message = base64.b64decode(evidence["tpm_quote"]["message"])
            assert Quote.parse(message).extra_data == data
            assert "credential" not in evidence
        with pytest.raises(CallerError, match="65 bytes"):
            await agent.evidence(bytes(65))
    assert evidence["cmdline"] == "quiet"


async def test_a_token_from_before_a_measurement_is_not_given_again(
    guest: Guest, ca: TpmCa, tmp_path: Path
) -> None:
    """Else the keys of one computation would open to the next."""
    async with (
        running_kbs(tmp_path / "kbs", ca.certificate, policy=ONE_COMPUTATION) as kbs,
        guest.agent() as (agent, _),
        KbsClient(kbs, agent) as client,
    ):
        before = await client.attest()
        assert await client.attest() == before
        await agent.extend_runtime_measurement("cocos", "computation", CONTENT)
        assert await client.get_resource(URI) == b"secret"
        between = await client.attest()
        second = CONTENT.replace("b" * 64, "c" * 64)
        await agent.extend_runtime_measurement("cocos", "computation", second)
        with pytest.raises(CallerError, match="refused"):
            await client.get_resource(URI)
        after = await client.attest()
        refused = json.loads(await agent.get_token(f"kbs::{kbs}", refused=after))
        assert refused["token"] != after
    counts = [len(claims_of(each)["tpm"]["computations"]) for each in (before, between, after)]
    assert counts == [0, 1, 2]


async def test_two_owners_have_a_kbs_each(guest: Guest, ca: TpmCa, tmp_path: Path) -> None:
    async with (
        running_kbs(tmp_path / "one", ca.certificate, secret=b"of one") as one,
        running_kbs(tmp_path / "two", ca.certificate, secret=b"of two") as two,
        guest.agent("--log-level", "debug") as (agent, _),
        KbsClient(one, agent) as first,
        KbsClient(two, agent) as second,
    ):
        found = await asyncio.gather(*(each.get_resource(URI) for each in (first, second) * 5))
        tokens = [json.loads(await agent.get_token(f"kbs::{url}")) for url in (one, two)]
    assert found == [b"of one", b"of two"] * 5
    assert tokens[0]["tee_keypair"] != tokens[1]["tee_keypair"], "neither can pose as the guest"


async def test_a_tpm_of_another_maker_is_not_believed(guest: Guest, tmp_path: Path) -> None:
    stranger = TpmCa(tmp_path / "stranger")
    await stranger.manufacture()
    async with (
        running_kbs(tmp_path / "kbs", stranger.certificate) as kbs,
        guest.agent() as (agent, _),
        KbsClient(kbs, agent) as client,
    ):
        with pytest.raises(AuthenticationError):
            await client.get_resource(URI)


@contextlib.contextmanager
def kbs_that_challenges(challenge: dict[str, str]) -> Iterator[str]:
    """A KBS whose challenge is not for the TPM that asked."""
    body = json.dumps({"nonce": b64(bytes(32)), "extra-params": {"tpm": challenge}}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Set-Cookie", "kbs-session-id=abc")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("change", ["another TPM", "another key", "cut short", "malformed"])
async def test_a_challenge_for_somebody_else_is_not_answered(guest: Guest, change: str) -> None:
    ak = guest.tpm.ak_name
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    made = make_credential(stranger if change == "another TPM" else guest.ek, ak, bytes(32))
    blob = made.credential_blob
    if change == "cut short":
        blob = blob[:-1]
    challenge = {
        "credential_blob": "?" if change == "malformed" else b64(blob),
        "encrypted_secret": b64(made.encrypted_secret),
    }
    with kbs_that_challenges(challenge) as kbs:
        async with guest.agent() as (agent, _):
            with pytest.raises((IntegrityError, CallerError), match="challenge"):
                await agent.get_token(f"kbs::{kbs}")
            assert await agent.evidence(bytes(48)), "the TPM works on"


async def test_init_data_is_bound_once_per_boot(guest: Guest) -> None:
    digest = hashlib.sha256(INIT_DATA).digest()
    wanted = extend(bytes(32), digest)
    for _ in range(2):
        async with guest.agent() as (agent, _):
            await agent.bind_init_data(digest)
            with pytest.raises(IntegrityError, match="other init data"):
                await agent.bind_init_data(hashlib.sha256(OTHER_INIT_DATA).digest())
            with pytest.raises(CallerError):
                await agent.bind_init_data(bytes(48))
        assert await guest.pcr(8) == wanted
    with pytest.raises(AssertionError, match="other init data"):
        async with guest.agent(init_data=OTHER_INIT_DATA):
            pass
    assert await guest.pcr(8) == wanted


async def test_init_data_can_be_bound_by_its_digest(guest: Guest) -> None:
    digest = hashlib.sha256(INIT_DATA).digest()
    async with guest.agent("-i", b64(digest), init_data=None):
        pass
    async with guest.agent():
        pass
    assert await guest.pcr(8) == extend(bytes(32), digest)


async def test_events_survive_the_agents_death(guest: Guest) -> None:
    async with guest.agent() as (agent, _):
        for number in range(3):
            assert await agent.extend_runtime_measurement("d", "o", f"{number}") == "OK"
    before, value = guest.log.read_bytes(), await guest.pcr(14)
    assert replay(parse_records(before), 14) == value
    # Killed after the TPM had extended the register, before the log was written.
    event = tagged_event("d", "o", "3")
    digest = hashlib.sha256(event).digest()
    entry = record(14, digest, event)
    note = len(before).to_bytes(8, "big") + extend(value, digest) + entry
    (guest.log.parent / ".wal_event_entry").write_bytes(note)
    await guest.tpm.extend(14, digest)
    async with guest.agent() as (agent, _):
        evidence = await agent.evidence(bytes(48))
    assert base64.b64decode(evidence["aael"]) == before + entry
    assert evidence["tpm_quote"]["pcrs"][14] == replay(parse_records(before + entry), 14).hex()
    # Somebody else extended it: no evidence of this boot could be explained any more.
    await guest.tpm.extend(14, digest)
    with pytest.raises(AssertionError, match="does not explain register 14"):
        async with guest.agent():
            pass


async def test_a_killed_agent_leaves_the_tpm_usable(guest: Guest) -> None:
    for _ in range(4):  # more than a TPM holds objects
        async with guest.agent() as (agent, program):
            assert await agent.evidence(bytes(48))
            program.kill()


async def test_events_go_to_one_register_only(guest: Guest) -> None:
    async with guest.agent() as (agent, _):
        for register in (0, 8, 11, 16, 23):
            with pytest.raises(CallerError, match=f"not {register}"):
                await agent.extend_runtime_measurement("d", "o", "c", register=register)
        assert await agent.extend_runtime_measurement("d", "o", "c", register=14) == "OK"
    for register in (16, 23):
        config = f"[eventlog_config]\nenable_eventlog = true\ninit_pcr = {register}\n"
        with pytest.raises(AssertionError, match=f"into PCR 14, not {register}"):
            async with guest.agent(config=config):
                pass


async def test_events_by_http(guest: Guest) -> None:
    event = {"domain": "d", "operation": "o", "content": "c"}
    async with (
        guest.agent() as (_, agent),
        running(
            "api-server-rest", "-b", "127.0.0.1:0", "-f", "attestation", "-a", agent.address
        ) as rest,
        httpx.AsyncClient(base_url=rest.address, trust_env=False) as http,
    ):
        answer = await http.post("/aa/aael", json=event)
        assert (answer.status_code, answer.json()) == (200, {"success": "true"})
    digest = hashlib.sha256(tagged_event("d", "o", "c")).digest()
    assert await guest.pcr(14) == hashlib.sha256(bytes(32) + digest).digest()


async def test_without_the_log_nothing_is_measured(guest: Guest) -> None:
    async with guest.agent(config="") as (agent, _):
        assert await agent.extend_runtime_measurement("d", "o", "c") == "NOT_ENABLED"
    assert await guest.pcr(14) == bytes(32)


async def test_a_tpm_that_died_is_named(guest: Guest) -> None:
    async with guest.agent() as (agent, _):
        await agent.evidence(bytes(48))
        guest.kill_tpm()
        with pytest.raises(UnreachableError, match="does not answer"):
            await agent.evidence(bytes(48))
        with pytest.raises(UnreachableError, match="does not answer"):
            await agent.extend_runtime_measurement("d", "o", "c")


async def test_a_tpm_without_the_library_is_an_error_not_a_sample(guest: Guest) -> None:
    """Here, tpm2-pytss is not installed."""
    program = Path(sys.executable).with_name("attestation-agent")
    env = {"AA_TPM_DEVICE": f"swtpm:path={guest.folder}/tpm.sock"}
    argv: list[str | Path] = [program, "-a", "127.0.0.1:0", "--insecure-sample"]
    done = await process.run(argv, env=env, check=False, timeout=60)
    assert done.exit_status == 69
    assert "python3-tpm2-pytss" in done.stderr.decode()


async def test_an_attestation_key_of_the_owners(guest: Guest) -> None:
    await guest.tpm.tool("evictcontrol", "-C", "o", "-c", "ak.ctx", "0x81010002", "-Q")
    await guest.tpm.tool("flushcontext", "-t")
    async with guest.agent(more={"AA_TPM_AK_HANDLE": "0x81010002"}) as (agent, _):
        for _ in range(2):
            evidence = await agent.evidence(bytes(48))
            assert base64.b64decode(evidence["ak_public"]) == guest.tpm.ak_spki


async def test_a_key_that_signs_anything_is_no_attestation_key(guest: Guest) -> None:
    await guest.tpm.tool("createprimary", "-C", "o", "-G", "rsa2048:rsassa-sha256", "-c", "k.ctx",
                         "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign", "-Q")  # fmt: skip
    await guest.tpm.tool("evictcontrol", "-C", "o", "-c", "k.ctx", "0x81010003", "-Q")
    await guest.tpm.tool("flushcontext", "-t")
    with pytest.raises(AssertionError, match="no RSA attestation key"):
        async with guest.agent(more={"AA_TPM_AK_HANDLE": "81010003"}):
            pass
