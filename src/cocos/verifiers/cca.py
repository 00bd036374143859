# SPDX-License-Identifier: Apache-2.0
"""Evidence of Arm CCA: the platform signs for the realm's key, and that key for the realm.

Whose platforms count is for the operator: Arm certifies none, and makers publish the keys of
theirs (CPAK) in ways of their own. They are the reference value ``cca_trust_anchors``, in the
form of Trustee's ``ta-store``.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from cocos._types import JsonObject
from cocos.crypto import jwk
from cocos.crypto.signature import SigningPublicKey
from cocos.errors import AuthenticationError, EvidenceError, Finding, FormatError
from cocos.evidence import cbor
from cocos.evidence.cca import Platform, Realm, Token
from cocos.evidence.cose import Sign1
from cocos.verifiers._base import Authentic, Expected, Verifier
from cocos.wire.kbs.protocol import Tee

TRUST_ANCHORS: Final = "cca_trust_anchors"

_MOST_BYTES: Final = 16 * 2**10
_FIELD: Final = 64  # bytes of challenge and personalization value
_SECURED: Final = range(0x3000, 0x3100)
_HASHES: Final = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}
_POINT: Final = 97  # uncompressed, of P-384
# Labels of a COSE_Key of kind EC2 on P-384 (RFC 9053 §7.1).
_EC2_P384: Final = {1: 2, -1: 2}


class CcaEvidence(msgspec.Struct, frozen=True):
    """Evidence of kind ``cca``; ``token`` is a list of bytes."""

    token: tuple[int, ...]


class CcaVerifier(Verifier):
    """Checks CCA tokens by the platforms' keys that an operator registered."""

    kind: ClassVar[Tee] = Tee.CCA

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the platform's key and signature, the realm's, and the challenge."""
        token = _parse(evidence)
        found = [
            *_platform_findings(token, expected.reference_values),
            *_challenge_findings(token.realm, expected.report_data),
        ]
        # The realm's key is the stranger's own until the platform has signed for it.
        found = found or _realm_findings(token)
        if found:
            raise _refused(found)
        return _Authentic(token)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    token: Token

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check the platform's state and the init data."""
        platform, realm = self.token.platform, self.token.realm
        found = [*_lifecycle_findings(platform), *_init_data_findings(realm, init_data)]
        if found:
            raise _refused(found)
        return {
            "realm": _realm_claims(realm),
            "platform": _platform_claims(platform),
            "report_data": realm.challenge.hex(),
            "init_data": realm.personalization.hex(),
        }


def _parse(evidence: Any) -> Token:
    try:
        return Token.parse(_bytes(msgspec.convert(evidence, CcaEvidence).token))
    except (msgspec.ValidationError, FormatError, ValueError) as error:
        raise EvidenceError(
            "the CCA evidence is malformed", findings=(Finding("cca.evidence", str(error)),)
        ) from error


def _bytes(listed: Sequence[int]) -> bytes:
    if len(listed) > _MOST_BYTES:
        raise FormatError(f"a token has {len(listed)} bytes; {_MOST_BYTES} are allowed")
    return bytes(listed)


def _refused(found: Sequence[Finding]) -> EvidenceError:
    return EvidenceError(
        f"the CCA evidence does not hold: {found[0].problem}", findings=tuple(found)
    )


def _platform_findings(token: Token, values: Mapping[str, Any]) -> list[Finding]:
    instance = token.platform.instance_id.hex()
    key = _registered(values.get(TRUST_ANCHORS), instance)
    if key is None:
        problem = "no key of this platform is registered"
        return [Finding("cca.platform.key", problem, instance, f"reference value {TRUST_ANCHORS}")]
    return _signature_findings(token.platform_signed, key, "cca.platform.signature", "platform")


def _registered(anchors: Any, instance: str) -> SigningPublicKey | None:
    """Return the key of an instance; ``instance-id`` and ``pkey`` as in a ta-store."""
    for each in anchors if isinstance(anchors, list) else ():
        if not isinstance(each, dict) or not isinstance(each.get("instance-id"), str):
            continue
        if each["instance-id"].lower() == instance and isinstance(each.get("pkey"), dict):
            try:
                return jwk.from_jwk(each["pkey"], "a CPAK").key
            except FormatError:
                return None
    return None


def _signature_findings(
    signed: Sign1, key: SigningPublicKey, step: str, whose: str
) -> list[Finding]:
    try:
        signed.verify(key)
    except AuthenticationError as error:
        return [Finding(step, f"the {whose}'s token does not hold: {error.message}")]
    return []


def _challenge_findings(realm: Realm, report_data: bytes) -> list[Finding]:
    carried, wanted = realm.challenge, bytes(report_data)[:_FIELD].ljust(_FIELD, b"\0")
    if hmac.compare_digest(carried, wanted):
        return []
    problem = "the token is not bound to this nonce and TEE key: another session's, or old"
    return [Finding("cca.report_data", problem, carried.hex(), wanted.hex())]


def _realm_findings(token: Token) -> list[Finding]:
    realm, said = token.realm, token.platform.challenge
    algorithm = _HASHES.get(realm.key_hash)
    digest = b"" if algorithm is None else hashlib.new(algorithm, realm.key).digest()
    if not hmac.compare_digest(digest, said):
        problem = "the platform does not vouch for the realm's key"
        return [Finding("cca.realm.key", problem, digest.hex(), said.hex())]
    try:
        key = _realm_key(realm.key)
    except FormatError as error:
        return [Finding("cca.realm.key", str(error))]
    return _signature_findings(token.realm_signed, key, "cca.realm.signature", "realm")


def _realm_key(data: bytes) -> ec.EllipticCurvePublicKey:
    if len(data) != _POINT:
        found = cbor.loads(data, "the realm's key")
        if not isinstance(found, dict) or any(
            found.get(label) != value for label, value in _EC2_P384.items()
        ):
            raise FormatError("the realm's key is not one of P-384")
        x, y = found.get(-2), found.get(-3)
        if not isinstance(x, bytes) or not isinstance(y, bytes):
            raise FormatError("the realm's key has no coordinates")
        data = b"\x04" + x + y
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), data)
    except ValueError as error:
        raise FormatError("the realm's key is no point of P-384") from error


def _lifecycle_findings(platform: Platform) -> list[Finding]:
    if platform.lifecycle in _SECURED:
        return []
    problem = "the platform is not secured: somebody can debug it, or it is not ready yet"
    return [Finding("cca.platform.lifecycle", problem, f"{platform.lifecycle:#06x}", "0x30..")]


def _init_data_findings(realm: Realm, init_data: bytes | None) -> list[Finding]:
    if init_data is None:
        return []
    carried, wanted = realm.personalization, init_data.ljust(_FIELD, b"\0")
    if hmac.compare_digest(carried, wanted):
        return []
    problem = "the init data shown is not the realm's personalization value"
    return [Finding("cca.init_data", problem, carried.hex(), wanted.hex())]


def _realm_claims(realm: Realm) -> JsonObject:
    return {
        "cca-realm-personalization-value": _base64(realm.personalization),
        "cca-realm-initial-measurement": _base64(realm.initial_measurement),
        "cca-realm-extensible-measurements": [*map(_base64, realm.extensible_measurements)],
        "cca-realm-hash-algo-id": realm.hash_algorithm,
        "cca-realm-challenge": _base64(realm.challenge),
    }


def _platform_claims(platform: Platform) -> JsonObject:
    return {
        "cca-platform-instance-id": _base64(platform.instance_id),
        "cca-platform-implementation-id": _base64(platform.implementation_id),
        "cca-platform-lifecycle": platform.lifecycle,
        "cca-platform-config": _base64(platform.config),
        "cca-platform-sw-components": [
            {
                name: _base64(value) if isinstance(value, bytes) else value
                for name, value in each.items()
            }
            for each in platform.components
        ],
    }


def _shown(value: bytes | str) -> str:
    return _base64(value) if isinstance(value, bytes) else value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
