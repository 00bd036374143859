# SPDX-License-Identifier: Apache-2.0
"""Certificates of signers of tokens, good and bad."""

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cocos.crypto.signing import SigningKey

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@dataclass
class Party:
    """Who has a key and a certificate; issues certificates to others."""

    name: str
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    certificate: x509.Certificate = field(init=False)

    def certify(
        self,
        issuer: "Party | None" = None,
        *,
        ca: bool | None = None,
        path_length: int | None = None,
        certifies: bool | None = None,
        start: dt.datetime = NOW - dt.timedelta(days=1),
        days: int = 30,
        more: Sequence[x509.Extension[Any]] = (),
    ) -> "Party":
        """Get a certificate: of ``issuer``, self-signed without."""
        issuer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(issuer.name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=days))
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        if certifies is not None:
            usage = x509.KeyUsage(
                digital_signature=not certifies,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=certifies,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        for extension in more:
            builder = builder.add_extension(extension.value, extension.critical)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())
        return self

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def x5c(self) -> str:
        return base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def signing_key(self) -> SigningKey:
        return SigningKey.from_pem(self.key_pem)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
