# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli keys``: a key pair for signing, and for receiving results."""

import enum
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cocos.cli import _common as common
from cocos.errors import UsageError
from cocos.host.disk import disk_error
from cocos.host.files import write_atomic

RSA_BITS = 3072  # as strong as P-256 and AES-128


class KeyType(enum.StrEnum):
    """Kinds of key pairs."""

    RSA = "rsa"
    ECDSA = "ecdsa"
    ED25519 = "ed25519"


def keys(
    *,
    key_type: Annotated[
        KeyType,
        typer.Option(
            "-k", "--key-type", help="rsa or ecdsa; ed25519 can sign but not receive results."
        ),
    ] = KeyType.RSA,
    folder: Annotated[
        Path, typer.Option("-o", "--output-dir", help="Folder for private.pem and public.pem.")
    ] = Path(),
    force: Annotated[
        bool, typer.Option("--force", help="Replace private.pem and public.pem if they exist.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Make private.pem and public.pem. Results are encrypted to the public key.

    Whoever has private.pem can read results; it is made readable for you alone.
    """
    private, public = folder / "private.pem", folder / "public.pem"
    for path in (private, public):
        if path.exists() and not force:
            raise UsageError(
                f"{path} exists", hint="--force replaces it; what only it opens is then lost"
            )
    key = _generate(key_type)
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_atomic(public, public_pem, mode=0o644)
    except OSError as error:
        raise disk_error(error, f"cannot write to {folder.resolve()}") from error
    receives = key_type is not KeyType.ED25519
    if not receives:
        common.stderr.print(
            "note: an ed25519 key cannot receive results; make an rsa or ecdsa key for that"
        )
    common.emit(
        {
            "private": str(private),
            "public": str(public),
            "type": key_type,
            "receives_results": receives,
        },
        lambda: common.stdout.print(f"wrote {private} and {public} ({key_type})", markup=False),
        as_json=as_json,
    )


def _generate(
    key_type: KeyType,
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    match key_type:
        case KeyType.RSA:
            return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case KeyType.ECDSA:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
