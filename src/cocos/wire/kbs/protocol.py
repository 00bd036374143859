# SPDX-License-Identifier: Apache-2.0
"""Messages between a guest and the key broker service: the RCAR handshake, version 0.4.0.

Request → Challenge → Attestation → Response, as in Trustee's KBS protocol. Outer member
names are kebab-case, the two inner evidence names snake_case.
"""

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from cocos._types import JsonObject, ReportData
from cocos.errors import FormatError
from cocos.wire.address import split
from cocos.wire.json import canonical

PROTOCOL_VERSION = "0.4.0"
SESSION_COOKIE = "kbs-session-id"
PROBLEM_TYPE = "https://github.com/confidential-containers/kbs/errors/"


class Tee(enum.StrEnum):
    """Names of trusted execution environments, as kbs-types writes them."""

    AZ_SNP_VTPM = "az-snp-vtpm"
    AZ_TDX_VTPM = "az-tdx-vtpm"
    CCA = "cca"
    CSV = "csv"
    HYGON_DCU = "hygondcu"
    NVIDIA = "nvidia"
    NVIDIA_DPU = "nvidia-dpu"
    SAMPLE = "sample"
    SAMPLE_DEVICE = "sampledevice"
    SE = "se"
    SGX = "sgx"
    SNP = "snp"
    TDX = "tdx"
    TPM = "tpm"


class EcKey(msgspec.Struct, frozen=True, tag_field="kty", tag="EC"):
    """Public EC JWK of a TEE key; coordinates are base64url, full length."""

    crv: str
    alg: str
    x: str
    y: str


class RsaKey(msgspec.Struct, frozen=True, tag_field="kty", tag="RSA"):
    """Public RSA JWK of a TEE key; numbers are base64url, big-endian."""

    alg: str
    n: str
    e: str


class OkpKey(msgspec.Struct, frozen=True, tag_field="kty", tag="OKP"):
    """Such a key exists, but no protocol of a KBS encrypts to it."""


class AkpKey(msgspec.Struct, frozen=True, tag_field="kty", tag="AKP"):
    """ML-KEM key, in experimental builds of Trustee only."""


TeePublicKey: TypeAlias = EcKey | RsaKey | OkpKey | AkpKey


class Request(msgspec.Struct, frozen=True, rename="kebab"):
    """Body of ``POST /kbs/v0/auth``."""

    version: str
    tee: Tee
    extra_params: Any


class Challenge(msgspec.Struct, frozen=True, rename="kebab"):
    """Answer to ``auth``. ``nonce`` is base64 of 32 random bytes, compared as text."""

    nonce: str
    extra_params: Any = ""


class InitData(msgspec.Struct, frozen=True):
    """What the host passed in, in clear; its digest is bound by the hardware."""

    format: Literal["toml", "json"]
    body: str


class RuntimeData(msgspec.Struct, frozen=True, rename="kebab"):
    """What the evidence must be bound to."""

    nonce: str
    tee_pubkey: TeePublicKey


class TeeEvidence(msgspec.Struct, frozen=True):
    """Evidence of the primary attester, and JSON text (TEE → evidence) of devices."""

    primary_evidence: Any
    additional_evidence: str = ""


class Attestation(msgspec.Struct, frozen=True, rename="kebab"):
    """Body of ``POST /kbs/v0/attest``."""

    runtime_data: RuntimeData
    tee_evidence: TeeEvidence
    init_data: InitData | None = None


class PolicyStored(msgspec.Struct, frozen=True):
    """Answer to setting or deleting a policy; Trustee's clients do not look at it."""

    warnings: tuple[str, ...] = ()


class AttestationResult(msgspec.Struct, frozen=True):
    """Answer to ``attest``: an EAR token as a compact JWT."""

    token: str


class Response(msgspec.Struct, frozen=True):
    """A resource as a flattened JWE; all members base64url without padding."""

    protected: str
    encrypted_key: str
    iv: str
    ciphertext: str
    tag: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Error body, ``application/problem+json`` (RFC 9457).

    ``type`` is :data:`PROBLEM_TYPE` and a variant of Trustee's; ``id`` is what
    ``kbs-client explain`` and the operator's log know the failure by.
    """

    type: str
    detail: str
    title: str = ""
    hint: str = ""
    id: str = ""


def key_members(key: TeePublicKey) -> JsonObject:
    """Return the members of ``key`` that are hashed, ``kty`` included."""
    members: JsonObject = msgspec.to_builtins(key)
    return members


def runtime_data(
    nonce: str, key: TeePublicKey, additional_evidence: str | None = None
) -> JsonObject:
    """Return the object whose digest evidence carries.

    Args:
        nonce: Challenge nonce, unchanged text.
        key: The attester's public key.
        additional_evidence: For the primary attester the text exactly as sent (``""``
            without devices); None for a device, whose object lacks the member.
    """
    data: JsonObject = {"nonce": nonce, "tee-pubkey": key_members(key)}
    if additional_evidence is not None:
        data["additional-evidence"] = additional_evidence
    return data


def without_devices(data: JsonObject) -> JsonObject:
    """Return what the evidence of devices is bound to: runtime data without their member."""
    return {name: value for name, value in data.items() if name != "additional-evidence"}


def report_data(data: JsonObject) -> ReportData:
    """Return the report data for a runtime data object: SHA-384 of its canonical JSON."""
    return ReportData(hashlib.sha384(canonical(data)).digest())


SEGMENT = r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]{0,511}"
"""A segment of a resource's path, of at most 512 characters: it goes to logs and databases."""

_RESOURCE_PATH = re.compile(rf"({SEGMENT})/({SEGMENT})/({SEGMENT})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ResourcePath:
    """``repository/type/tag`` of a resource: letters, digits, ``_``, ``-``, inner ``.``."""

    repository: str
    type: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> "ResourcePath":
        """Parse ``repository/type/tag`` without leading slash.

        Raises:
            FormatError: not three segments of the allowed characters and length.
        """
        match = _RESOURCE_PATH.fullmatch(text)
        if match is None:
            raise FormatError(
                f"{text!r} is not a resource path",
                hint="write it as repository/type/tag, such as default/key/algo-key",
            )
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.repository}/{self.type}/{self.tag}"

    @property
    def uri(self) -> str:
        """The same as a resource URI of the configured KBS."""
        return f"kbs:///{self}"


_PLUGIN = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResourceUri:
    """``kbs[+plugin]://[host]/path[?query]``; the host is never used for routing."""

    plugin: str
    path: str
    query: str = ""

    @classmethod
    def parse(cls, text: str) -> "ResourceUri":
        """Parse a resource URI.

        Raises:
            FormatError: another scheme, an empty plugin name or an empty path, or no URI.
        """
        problem = FormatError(
            f"{text!r} is not a resource URI", hint="write it as kbs:///repository/type/tag"
        )
        parts, _ = split(text, problem)
        scheme, _, plugin = parts.scheme.partition("+")
        plugin = plugin if "+" in parts.scheme else "resource"
        path = parts.path.removeprefix("/")
        if (
            scheme != "kbs"
            or not _PLUGIN.fullmatch(plugin)
            or not parts.path.startswith("/")
            or not all(path.split("/"))
            or any(segment in {".", ".."} for segment in path.split("/"))
            or parts.fragment
        ):
            raise problem
        return cls(plugin, path, parts.query)

    @property
    def route(self) -> str:
        """Path and query below ``/kbs/v0/``."""
        return f"{self.plugin}/{self.path}" + (f"?{self.query}" if self.query else "")

    def __str__(self) -> str:
        scheme = "kbs" if self.plugin == "resource" else f"kbs+{self.plugin}"
        return f"{scheme}:///{self.path}" + (f"?{self.query}" if self.query else "")
