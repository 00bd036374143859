# SPDX-License-Identifier: Apache-2.0
"""What a stranger can make a KBS do with one request, counted.

Each route that asks for no proof gets the costliest input that its limits let in. What it
costs is counted in calls of functions: on the event loop, where everybody else waits for it,
and in all.
"""

import hashlib
import http.cookies
import json
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from _costly import (
    EVIDENCE,
    FULL,
    INIT_DATA,
    JSONS,
    KEY,
    MEASURED,
    ON_LOOP,
    TOKENS,
    TPM,
    affordable,
    event,
    log,
    logged,
    objects,
)
from _kbs import InProcessKbs, kbs_in_process
from _meter import Answer, Meter, call
from _software_tpm import b64

from cocos._types import JsonObject
from cocos.crypto import base64url
from cocos.evidence.eventlog import parse_log, replay
from cocos.host.policies.workers import PolicyWorkers
from cocos.transport.web import MAX_BODY_BYTES
from cocos.wire.json import canonical

pytestmark = pytest.mark.integration

# --- the KBS --------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path, auth_rate=0) as found:
        yield found


async def opened(kbs: InProcessKbs, tee: str) -> tuple[str, str]:
    """Return the cookie and the nonce of a new session."""
    body = json.dumps({"version": "0.4.0", "tee": tee, "extra-params": ""}).encode()
    answer, meter = await call(kbs, "POST", "/kbs/v0/auth", body=body)
    affordable(meter)
    return answer.headers["set-cookie"].partition(";")[0], json.loads(answer.body)["nonce"]


async def attested(
    kbs: InProcessKbs,
    tee: str,
    evidence: Callable[[bytes], Any],
    *,
    key: JsonObject = KEY,
    additional: str = "",
    init_data: str | None = None,
) -> tuple[Answer, Meter]:
    cookie, nonce = await opened(kbs, tee)
    runtime = {"nonce": nonce, "tee-pubkey": key}
    bound = hashlib.sha384(canonical({**runtime, "additional-evidence": additional})).digest()
    shown: JsonObject = {
        "runtime-data": runtime,
        "tee-evidence": {"primary_evidence": evidence(bound), "additional_evidence": additional},
    }
    if init_data is not None:
        shown["init-data"] = {"format": "toml", "body": init_data}
    body = json.dumps(shown, separators=(",", ":")).encode()
    assert len(body) <= MAX_BODY_BYTES
    return await call(kbs, "POST", "/kbs/v0/attest", {"cookie": cookie}, body)


@pytest.mark.parametrize("made", JSONS)
async def test_auth(kbs: InProcessKbs, made: Callable[[], str]) -> None:
    body = f'{{"version":"0.4.0","tee":"sample","extra-params":{made()}}}'.encode()
    answer, meter = await call(kbs, "POST", "/kbs/v0/auth", body=body)
    assert answer.status in {200, 400}
    affordable(meter)


@pytest.mark.parametrize(
    "params",
    [
        {"ek_certificate": b64(bytes(10**6)), "ak_public": b64(bytes(2))},
        {
            "ek_certificate": b64(bytes(9)),
            # An RSA key of the 65535 bits that the field can say.
            "ak_public": b64(
                struct.pack(">HHHIH", 8216, 1, 0xB, 0x50072, 0)
                + bytes.fromhex("00100014000bffff00000000")
                + struct.pack(">H", 8192)
                + b"\x7f"
                + b"\xff" * 8191
            ),
        },
    ],
    ids=["certificate", "key"],
)
async def test_announcements(kbs: InProcessKbs, params: JsonObject) -> None:
    body = {"version": "0.4.0", "tee": "tpm", "extra-params": {"tpm": params}}
    answer, meter = await call(kbs, "POST", "/kbs/v0/auth", body=json.dumps(body).encode())
    assert answer.status == 401
    affordable(meter)


@pytest.mark.parametrize("name", EVIDENCE)
async def test_evidence(kbs: InProcessKbs, name: str) -> None:
    for tee in ("tpm", "sample"):
        answer, meter = await attested(kbs, tee, EVIDENCE[name])
        assert answer.status in {400, 401}
        affordable(meter)


@pytest.mark.parametrize("name", EVIDENCE)
async def test_logs_are_not_looked_at_before_the_signature(kbs: InProcessKbs, name: str) -> None:
    """However long they are: parsing alone would be thousands of calls."""
    if name.startswith("log "):
        _, short = await attested(kbs, "tpm", logged([]))
        _, long = await attested(kbs, "tpm", EVIDENCE[name])
        assert long.total - short.total < 200


@pytest.mark.parametrize("made", JSONS)
async def test_additional_evidence(kbs: InProcessKbs, made: Callable[[], str]) -> None:
    text = f'{{"sampledevice":{made()}}}'[: FULL // 2]
    answer, meter = await attested(kbs, "sample", lambda _: {}, additional=text)
    assert answer.status in {400, 401}
    affordable(meter)


async def test_many_devices(kbs: InProcessKbs) -> None:
    devices = json.dumps({"sampledevice": {}, "nvidia": {}, "snp": {}, "tdx": {}, "sgx": {}})
    answer, meter = await attested(kbs, "sample", lambda _: {}, additional=devices)
    assert answer.status == 401
    affordable(meter)


@pytest.mark.parametrize("name", INIT_DATA)
async def test_init_data(kbs: InProcessKbs, name: str) -> None:
    """Of evidence that does not hold it is not even parsed."""
    for tee in ("tpm", "sample"):
        answer, meter = await attested(kbs, tee, lambda _: {}, init_data=INIT_DATA[name][:FULL])
        assert answer.status == 401
        affordable(meter)
        assert meter.total < ON_LOOP


async def test_a_key_of_the_guest(kbs: InProcessKbs) -> None:
    numbers = {"n": base64url.encode(b"\xff" * 700_000), "e": base64url.encode(b"\xff" * 700_000)}
    largest = {"n": base64url.encode(b"\xff" * 1024), "e": base64url.encode(b"\xff" * 8)}
    for key in (numbers, largest):
        rsa = {"kty": "RSA", "alg": "RSA-OAEP-256", **key}
        answer, meter = await attested(kbs, "tpm", logged([]), key=rsa)
        assert answer.status in {400, 401}
        affordable(meter)


@pytest.mark.parametrize("method_path", ["POST /kbs/v0/attest", "GET /kbs/v0/resource/a/b/c"])
async def test_cookies(
    kbs: InProcessKbs, method_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unquoting one takes the square of its length in Python up to 3.11.9."""
    unquoted: list[str] = []

    def unquote(text: str) -> str:
        unquoted.append(text)
        return text

    monkeypatch.setattr(http.cookies, "_unquote", unquote)
    method, path = method_path.split()
    for cookie in ('kbs-session-id="' + "\\" * 60_000 + '"', ";" * 60_000, "a=b;" * 15_000):
        answer, meter = await call(kbs, method, path, {"cookie": cookie})
        assert answer.status == 401
        affordable(meter)
    assert not unquoted


@pytest.mark.parametrize("name", TOKENS)
async def test_tokens_at_resources(kbs: InProcessKbs, name: str) -> None:
    bearer = {"authorization": f"Bearer {TOKENS[name]}"}
    answer, meter = await call(kbs, "GET", "/kbs/v0/resource/a/b/c", bearer)
    assert answer.status == 401
    affordable(meter)


ADMIN = [
    ("POST", "/kbs/v0/resource/a/b/c"),
    ("DELETE", "/kbs/v0/resource/a/b/c"),
    ("POST", "/kbs/v0/resource-policy"),
    ("GET", "/kbs/v0/resource-policy"),
    ("POST", "/kbs/v0/attestation-policy"),
    ("POST", "/kbs/v0/reference-value"),
    ("GET", "/kbs/v0/reference-value"),
    ("GET", "/kbs/v0/resources"),
    ("GET", "/kbs/v0/audit"),
]


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize(("method", "path"), ADMIN)
async def test_strangers_at_admin_routes(
    kbs: InProcessKbs, method: str, path: str, name: str
) -> None:
    """Neither the token nor the body of somebody who has not proved who they are is worked on."""
    bearer = {"authorization": f"Bearer {TOKENS[name]}"}
    answer, meter = await call(kbs, method, path, bearer, objects().encode())
    assert answer.status in {401, 404, 405}
    affordable(meter)
    _, none = await call(kbs, method, path, body=objects().encode())
    affordable(none)


async def test_queries(kbs: InProcessKbs) -> None:
    for query in ("&".join(f"a{n}=b" for n in range(8000)), "&" * 60_000, "%41" * 20_000):
        answer, meter = await call(kbs, "GET", "/kbs/v0/resource/a/b/c", query=query)
        assert answer.status in {400, 401}
        affordable(meter)


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
        "/kbs/v0/auth",
        "/" + "a/" * 30_000,
        "/kbs/v0/resource/" + "a" * 60_000,
    ],
)
async def test_what_everybody_may_read(kbs: InProcessKbs, path: str) -> None:
    for _ in range(3):
        _, meter = await call(kbs, "GET", path)
        affordable(meter)


# --- who has a TPM, and bad intentions ------------------------------------------------------


def genuine(events: list[bytes]) -> Callable[[bytes], Any]:
    """Evidence that holds, with a log that leads to its PCRs."""
    logged_events = parse_log(log(events))
    pcrs = tuple(replay(logged_events, index) for index in range(24))
    return lambda bound: {**TPM.quote(bound, pcrs), "event_log": b64(log(events))}


@pytest.mark.parametrize("data", [b"", b"\0" * 300], ids=["short", "long"])
async def test_a_long_log_that_holds_up_nobody(tmp_path: Path, data: bytes) -> None:
    async with (
        PolicyWorkers() as engine,
        kbs_in_process(tmp_path, auth_rate=0, engine=engine) as kbs,
    ):
        async with kbs.admin() as admin:
            await admin.register_reference_values({"trusted_ak": [b64(TPM.spki)]})
        await holds_up_nobody(kbs, data)


async def holds_up_nobody(kbs: InProcessKbs, data: bytes) -> None:
    events = [event(pcr, 0x80000003, data) for pcr in MEASURED[:-1] * 100]
    answer, meter = await attested(kbs, "tpm", genuine(events))
    assert answer.status == 200
    assert meter.on_loop <= ON_LOOP, meter
