# SPDX-License-Identifier: Apache-2.0
"""Credentials for private registries, as a KBS keeps them for guests.

The form of Docker's and Skopeo's files, ``{"auths": {"registry.example": {"auth": …}}}``, with
one member of ours beside it: ``extra_root_certificates``, a list of certificates in PEM. Who
has the password says so whom to believe; what the host names counts for others only.
"""

from dataclasses import dataclass, field

import msgspec

from cocos.errors import FormatError
from cocos.wire import json, oci

_HUB = {"https://index.docker.io/v1/": "docker.io", "index.docker.io": "docker.io"}


class _Entry(msgspec.Struct, frozen=True):
    auth: str


class _Document(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry]
    extra_root_certificates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """Credentials for one registry.

    Attributes:
        authfile: For Skopeo: what was meant for this registry, and nothing else.
        certificates: CAs that this registry's certificate may chain to, PEM; may be empty.
    """

    authfile: bytes = field(repr=False)
    certificates: str

    @classmethod
    def choose(
        cls, data: bytes, reference: oci.Reference, what: str
    ) -> "RegistryCredentials | None":
        """Return what a document has for an image, None if it does not name its registry.

        Args:
            data: The document.
            reference: The image.
            what: The document, for messages; its content is in none.

        Raises:
            FormatError: it is not of that form.
        """
        try:
            document: _Document = json.decode(data, _Document, what)
        except FormatError as error:
            hint = '{"auths": {"REGISTRY": {"auth": "base64 of user:password"}}}'
            raise FormatError(f"{what} are not in the form of an auth.json", hint=hint) from error
        found = {
            name: entry
            for key, entry in document.auths.items()
            if _covers(name := _HUB.get(key, key).rstrip("/"), reference)
        }
        if not found:
            return None
        certificates = document.extra_root_certificates
        if not all("-----BEGIN CERTIFICATE-----" in each for each in certificates):
            raise FormatError(f"{what} have extra_root_certificates that are no PEM")
        return cls(json.encode({"auths": found}), "\n".join(certificates))


def _covers(name: str, reference: oci.Reference) -> bool:
    """Tell whether an entry, a registry with or without a path in it, is for an image."""
    return f"{reference.name}/".startswith(f"{name}/")
