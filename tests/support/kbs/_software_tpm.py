# SPDX-License-Identifier: Apache-2.0
"""What passes for a TPM as far as a verifier can see: an EK, its CA's certificate, an AK.

An attacker has the AK alone and says what he likes; with a certified EK it is a TPM as good
as any, whose PCRs are whatever the test wants.
"""

import base64
import datetime as dt
import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.x509.oid import NameOID

from cocos._types import JsonObject
from cocos.crypto import tpm_credential
from cocos.evidence.endorsement import MANAGER_CA_POLICY

_EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")
_MANAGERS = x509.CertificatePolicies([x509.PolicyInformation(MANAGER_CA_POLICY, None)])
_RESTRICTED_SIGNING = 0x50072
PCRS = tuple(bytes(32) for _ in range(24))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass
class SoftwareCa:
    """Who certifies endorsement keys: a manager, as far as its certificate goes."""

    now: dt.datetime
    name: str = "maker"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def certificate(self, key: Any = None, *, days: float = 1) -> x509.Certificate:
        """Return the certificate of an endorsement key; the CA's own without one."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name if key is None else "tpm"))
            .issuer_name(_name(self.name))
            .public_key(self.key.public_key() if key is None else key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - dt.timedelta(days=1))
            .not_valid_after(self.now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=key is None, path_length=None), critical=True)
        )
        kind = _MANAGERS if key is None else x509.ExtendedKeyUsage([_EK_USAGE])
        builder = builder.add_extension(kind, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def pem(self) -> bytes:
        return self.certificate().public_bytes(serialization.Encoding.PEM)


@dataclass
class SoftwareTpm:
    """An attestation key and, for whoever has a certificate of it, an endorsement key."""

    ak: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ek: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @property
    def spki(self) -> bytes:
        return self.ak.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def public_area(self) -> bytes:
        """TPMT_PUBLIC of the attestation key."""
        modulus = self.ak.public_key().public_numbers().n.to_bytes(256, "big")
        head = struct.pack(">HHIH", 1, 0xB, _RESTRICTED_SIGNING, 0)
        return head + bytes.fromhex("00100014000b0800") + struct.pack(">IH", 0, 256) + modulus

    def params(self, certificate: x509.Certificate) -> JsonObject:
        """Return what a guest announces under ``tpm``."""
        area = self.public_area
        der = certificate.public_bytes(serialization.Encoding.DER)
        ak_public = b64(struct.pack(">H", len(area)) + area)
        return {"ek_certificate": b64(der), "ak_public": ak_public}

    def activate(self, challenge: JsonObject) -> bytes:
        """TPM2_ActivateCredential."""
        blob = base64.b64decode(challenge["credential_blob"])
        wrapped = base64.b64decode(challenge["encrypted_secret"])[2:]
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
        seed = self.ek.decrypt(wrapped, oaep)
        name = (0xB).to_bytes(2, "big") + hashlib.sha256(self.public_area).digest()
        key = tpm_credential.kdfa(seed, "STORAGE", name, 16)
        sealed = blob[2 + 2 + 32 :]
        decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        return (decryptor.update(sealed) + decryptor.finalize())[2:]

    def quote(
        self, bound: bytes, pcrs: tuple[bytes, ...] = PCRS, *, secret: bytes | None = None
    ) -> dict[str, Any]:
        """Return evidence; with the proof that a challenge's secret was recovered."""
        message = struct.pack(">IHHH", 0xFF544347, 0x8018, 0, len(bound)) + bound + bytes(25)
        message += struct.pack(">IHB", 1, 0xB, 3) + b"\xff\xff\xff"
        message += struct.pack(">H", 32) + hashlib.sha256(b"".join(pcrs)).digest()
        signature = self.ak.sign(message, padding.PKCS1v15(), hashes.SHA256())
        made: dict[str, Any] = {
            "tpm_quote": {
                "signature": b64(struct.pack(">HHH", 0x14, 0xB, 256) + signature),
                "message": b64(message),
                "pcrs": [value.hex() for value in pcrs],
            },
            "ak_public": b64(self.spki),
        }
        if secret is not None:
            made["credential"] = {"proof": b64(tpm_credential.proof(secret, bound))}
        return made
