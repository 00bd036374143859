# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli secret``: seal secrets that only attested guests can open."""

import base64
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cocos.cli import _common as common
from cocos.crypto import kek
from cocos.crypto.kek import WrapType
from cocos.crypto.signing import SigningKey
from cocos.errors import ConfigError, NotFoundError, TooLargeError
from cocos.host.files import read_file
from cocos.host.key_folder import KeyFolder
from cocos.wire import sealed_secret
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri
from cocos.wire.sealed_secret import Envelope, Payload, SealedSecret, Vault

_MAX_SECRET_BYTES = sealed_secret.MAX_BYTES // 2

app = common.make_app(
    "Seal secrets: text that may lie anywhere, and that a confidential data hub opens where "
    "the KBS releases what it names."
)

Signer = Annotated[
    Path,
    typer.Option(
        "--signing-key", help="Your private key, EC P-256, as PEM: cocos-cli keys --key-type ecdsa."
    ),
]
Kid = Annotated[
    str,
    typer.Option(
        help="Where the guest finds your public key: kbs:///repository/type/tag, or a file name."
    ),
]


@app.command("public-key")
def public_key(*, signing_key: Signer, as_json: common.JsonFlag = False) -> None:
    """Print the public key as a JWK: store it at the KBS under the name of --kid."""
    jwk = _signer(signing_key).public_jwk()
    common.emit(jwk, lambda: print(json.dumps(jwk)), as_json=as_json)  # noqa: T201 - the result


@app.command("vault")
def vault(
    name: Annotated[str, typer.Argument(help="The secret's resource, kbs:///repository/type/tag.")],
    *,
    signing_key: Signer,
    kid: Kid,
    as_json: common.JsonFlag = False,
) -> None:
    """Print a sealed secret that stands for a resource of the KBS."""
    _print(Vault(name=str(ResourceUri.parse(name))), signing_key, kid, as_json=as_json)


@app.command("envelope")
def envelope(
    *,
    key: Annotated[
        str, typer.Option(help="Key at the KBS that the secret is sealed to: repository/type/tag.")
    ],
    signing_key: Signer,
    kid: Kid,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of your own keys. [default: your key folder]")
    ] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Print a sealed secret that carries what is on standard input."""
    path = ResourcePath.parse(key.removeprefix("kbs:///"))
    folder = KeyFolder.default() if keys is None else KeyFolder(keys)
    wrapping = folder.read(path)
    if wrapping is None:
        raise NotFoundError(
            f"there is no key {path} in {folder.folder}",
            hint="cocos-cli encrypt makes keys; or give --keys DIR",
        )
    secret = sys.stdin.buffer.read(_MAX_SECRET_BYTES + 1)
    if len(secret) > _MAX_SECRET_BYTES:
        raise TooLargeError(f"a sealed secret carries at most {_MAX_SECRET_BYTES} bytes")
    data_key = kek.generate()
    wrapped = kek.wrap(data_key, secret, WrapType.A256GCM)
    payload = Envelope(
        key_id=path.uri,
        encrypted_key=_b64(kek.wrap_key(wrapping, data_key)),
        encrypted_data=_b64(wrapped.data),
        wrap_type=wrapped.wrap_type.value,
        iv=_b64(wrapped.iv),
    )
    _print(payload, signing_key, kid, as_json=as_json)


def _signer(path: Path) -> SigningKey:
    with common.reading(ConfigError, path=path):
        return SigningKey.from_pem(read_file(path, "the signing key", limit=2**16))


def _print(payload: Payload, signing_key: Path, kid: str, *, as_json: bool) -> None:
    text = sealed_secret.seal(payload, _signer(signing_key), kid)
    SealedSecret.parse(text.encode())  # a kid that no hub would look up
    # Upstream's hub takes a file as it is: a newline would be part of the signature.
    end = "\n" if common.stdout.is_terminal else ""
    common.emit({"sealed_secret": text}, lambda: print(text, end=end), as_json=as_json)  # noqa: T201


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
