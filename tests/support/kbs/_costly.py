# SPDX-License-Identifier: Apache-2.0
"""The costliest inputs that the limits for strangers let in, and what they may cost."""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

from _meter import Meter
from _software_tpm import SoftwareTpm, b64

from cocos.crypto import base64url
from cocos.crypto.tee_key import TeeKeyPair
from cocos.transport.web import MAX_BODY_BYTES
from cocos.wire.json import MAX_VALUES

ON_LOOP = 15_000
"""Calls on the event loop: about a millisecond."""

TOTAL = MAX_BODY_BYTES
"""Calls in all: one for each byte that a body may have."""

TPM = SoftwareTpm()
KEY = TeeKeyPair.generate().public_jwk()
FULL = MAX_BODY_BYTES - 2**14


# --- what costs much ------------------------------------------------------------------------


def objects() -> str:
    """JSON of as many objects as one may send."""
    return "[" + ",".join(["{}"] * (MAX_VALUES - 100)) + "]"


def names() -> str:
    return "{" + ",".join(f'"{n}":{n}' for n in range(MAX_VALUES - 100)) + "}"


def brackets() -> str:
    return "[" * 50 + ",".join(["[]"] * 90_000) + "]" * 50


def escapes() -> str:
    return json.dumps("\\\n" * (FULL // 5))


JSONS = [objects, names, brackets, escapes]


def event(pcr: int, kind: int, data: bytes, digest: bytes | None = None) -> bytes:
    extended = hashlib.sha256(data).digest() if digest is None else digest
    return struct.pack("<IIIH", pcr, kind, 1, 0xB) + extended + struct.pack("<I", len(data)) + data


def log(events: list[bytes]) -> bytes:
    head = b"Spec ID Event03\0" + bytes(8) + struct.pack("<IHHB", 1, 0xB, 32, 0)
    return (
        struct.pack("<II", 0, 3)
        + bytes(20)
        + struct.pack("<I", len(head))
        + head
        + b"".join(events)
    )


MEASURED = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14)
AAEL = b"LEAA" + struct.pack("<I", 5) + b"a b c"
LOGS = {
    "as many as were looked through": [event(pcr, 0xD, b"") for pcr in MEASURED * 256],
    "of one PCR": [event(4, 0x80000003, b"")] * 4096,
    "over their data": [event(4, 4, b"1234", bytes(32))] * 4096,
    "disguised": [event(14, 0xD, b"x")] * 4096,
    "runtime": [event(14, 6, AAEL, bytes(32))] * 4096,
}


def logged(events: list[bytes], aael: bytes = b"") -> Callable[[bytes], Any]:
    """Evidence that nobody signed, with logs."""

    def made(bound: bytes) -> Any:
        evidence = TPM.quote(bound, secret=bytes(32))
        evidence["tpm_quote"]["signature"] = b64(struct.pack(">HHH", 0x14, 0xB, 256) + bytes(256))
        return {**evidence, "event_log": b64(log(events)), "aael": b64(aael)}

    return made


def big_rsa(bound: bytes) -> Any:
    """A key whose numbers are as long as the body allows."""

    def integer(size: int) -> bytes:
        return b"\2\x83" + (size + 1).to_bytes(3, "big") + b"\0" + b"\xff" * size

    def wrapped(tag: bytes, content: bytes) -> bytes:
        return tag + b"\x83" + len(content).to_bytes(3, "big") + content

    numbers = wrapped(b"\x30", integer(600_000) + integer(400_000))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    spki = wrapped(b"\x30", algorithm + wrapped(b"\3", b"\0" + numbers))
    return {**TPM.quote(bound), "ak_public": b64(spki)}


def long_quote(bound: bytes) -> Any:
    evidence = TPM.quote(bound)
    evidence["tpm_quote"]["message"] = b64(bytes(1_000_000))
    return evidence


def parsed(made: Callable[[], str]) -> Callable[[bytes], Any]:
    return lambda _bound: json.loads(made())


EVIDENCE: dict[str, Callable[[bytes], Any]] = {
    **{f"log {name}": logged(events) for name, events in LOGS.items()},
    "runtime log": logged([], b"".join(LOGS["runtime"])),
    "big RSA": big_rsa,
    "long quote": long_quote,
    **{made.__name__: parsed(made) for made in JSONS},
}

TOML = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'
INIT_DATA = {
    "many names": TOML + "".join(f"n{n} = 'x'\n" for n in range(100_000)),
    "many tables": TOML + "".join(f"[a{n}]\n" for n in range(100_000)),
    "nothing": "#" * FULL,
}


def header(content: str) -> str:
    """A JWT of a stranger, with that as its header."""
    claims = base64url.encode(b"{}")
    return f"{base64url.encode(content.encode())}.{claims}.{base64url.encode(bytes(64))}"


TOKENS = {
    "objects in the header": header('{"alg":"EdDSA","x":' + objects() + "}"),
    "certificates": header(
        json.dumps({"alg": "ES256", "jwk": {"kty": "EC", "alg": "ES256", "x5c": ["A"] * 100_000}})
    ),
    "big RSA": header(
        json.dumps(
            {
                "alg": "RS256",
                "jwk": {
                    "kty": "RSA",
                    "alg": "RS256",
                    "n": base64url.encode(b"\xff" * 300_000),
                    "e": base64url.encode(b"\xff" * 300_000),
                },
            }
        )
    ),
    "dots": "." * 2**20,
    "long": header('{"alg":"EdDSA"}') + "A" * 2**19,
}


def affordable(meter: Meter) -> None:
    assert meter.on_loop <= ON_LOOP, meter
    assert meter.total <= TOTAL, meter
