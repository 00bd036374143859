# SPDX-License-Identifier: Apache-2.0
"""The parts of a manifest; :mod:`cocos.wire.manifest.computation` puts them together."""

from dataclasses import dataclass

OCI_IMAGE = "oci-image"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a resource comes from and which key opens it.

    Attributes:
        type: Kind of source; ``oci-image``.
        url: ``docker://host/repository:tag`` or ``oci:/folder:tag``.
        encrypted: The owner says that every layer is encrypted.
        key: Resource path of the key, ``repository/type/tag``; empty when not encrypted.
        kbs: Address of the KBS that has the key, with what it is known by
            (:mod:`cocos.wire.kbs.address`); empty: the one that the CVM was started with; None
            when not encrypted.
    """

    type: str
    url: str
    encrypted: bool = False
    key: str = ""
    kbs: str | None = None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The program.

    Attributes:
        source: Where it comes from.
        hash: SHA-256 of the image's configuration, 32 bytes; empty: not pinned.
        kind: How it is run; ``oci-image``.
        args: Arguments; none: the paths of the datasets, in order.
        user_key: The provider's public key, DER SubjectPublicKeyInfo, or empty.
    """

    source: Source
    hash: bytes = b""
    kind: str = OCI_IMAGE
    args: tuple[str, ...] = ()
    user_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One set of data.

    Attributes:
        source: Where it comes from.
        hash: SHA-256 of the image's configuration, 32 bytes; empty: not pinned.
        filename: Name below ``/cocos/datasets``; empty: the data's own.
        decompress: Never true for images; other sources will need it.
        user_key: The provider's public key, DER SubjectPublicKeyInfo, or empty.
    """

    source: Source
    hash: bytes = b""
    filename: str = ""
    decompress: bool = False
    user_key: bytes = b""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How the agent serves and logs; members as on the wire."""

    port: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    server_ca_file: str = ""
    log_level: str = ""
    attested_tls: bool = False
