# SPDX-License-Identifier: Apache-2.0
"""OCI images on the wire: descriptors, manifests, indexes, configs, references.

Docker's schema 2 documents have the same members and are read, too. Only SHA-256 digests
are accepted: an image that names its content by another hash is refused, not half-checked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType, get_args

import msgspec
from msgspec.structs import fields

from cocos.errors import FormatError
from cocos.wire.json import decode, encode

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hex digits; made by :func:`parse_digest` or :func:`digest_of`."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER_TAR + "+gzip"
ENCRYPTED = "+encrypted"
REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_VERSION = "1.0.0"

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def parse_digest(text: str) -> Digest:
    """Check the form of a digest.

    Raises:
        FormatError: not ``sha256:`` and 64 lower-case hex digits.
    """
    if not _DIGEST.fullmatch(text):
        raise FormatError(f"{text[:100]!r} is not a SHA-256 digest")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the digest of ``data``."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """For which machines an image of an index is; unknown members are ignored."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Names a blob by media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("digest is not a SHA-256 digest")
        if self.size < 0:
            raise ValueError("size is negative")

    @property
    def encrypted(self) -> bool:
        """Whether the media type says that the blob is ciphertext of ocicrypt."""
        return self.media_type.endswith(ENCRYPTED)


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image: a config and its layers, lowest first."""

    schema_version: int
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Several images under one name, or the content of a layout."""

    schema_version: int
    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    annotations: dict[str, str] | None = None


class RootFs(msgspec.Struct, frozen=True):
    """Digests of the layers' uncompressed tar streams, lowest first."""

    diff_ids: tuple[str, ...]
    type: str = "layers"


class ContainerConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How to run the image; unknown members are ignored."""

    user: str = ""
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The config blob. It binds every layer's plaintext and encryption leaves it as it is."""

    rootfs: RootFs
    architecture: str = ""
    os: str = ""
    config: ContainerConfig | None = None


class LayoutMarker(msgspec.Struct, frozen=True, rename="camel"):
    """Content of the file ``oci-layout``."""

    image_layout_version: str


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: Any = None


def parse_manifest(data: bytes) -> Manifest | Index:
    """Parse what a registry returns for a name.

    Raises:
        FormatError: neither an image manifest nor an index, malformed, or ambiguous.
    """
    _check_names(data, Manifest | Index, "the image manifest")
    kind: _Kind = decode(data, _Kind, "the image manifest")
    if kind.media_type in {INDEX, _DOCKER_LIST} or (
        not kind.media_type and kind.manifests is not None
    ):
        index: Index = decode(data, Index, "the image index")
        return index
    if kind.media_type in {"", MANIFEST, _DOCKER_MANIFEST}:
        manifest: Manifest = decode(data, Manifest, "the image manifest")
        return manifest
    raise FormatError(f"an image manifest of type {kind.media_type[:100]!r} is not supported")


class _Members(list[tuple[str, Any]]):
    """The members of an object, as they stand there."""


def _check_names(data: bytes, shape: Any, what: str) -> None:
    """Refuse a document that Go's programs, Skopeo and umoci among them, read in another way.

    To them ``Layers`` is ``layers``, and the last one counts: we would verify one image and
    they would unpack another; we would start one program, and who looks at the image with
    their tools would see another.
    """

    def check(value: Any, shape: Any) -> None:
        known = {
            field.encode_name: field.type for each in _structs(shape) for field in fields(each)
        }
        if isinstance(value, _Members):
            spelled = {name.casefold(): name for name in known}
            for name, member in value:
                if spelled.get(name.casefold(), name) != name:
                    raise FormatError(
                        f"{what} is ambiguous: {name[:50]!r} is not how it is spelled"
                    )
                check(member, known.get(name))
        elif isinstance(value, list):
            for item in value:
                check(item, shape)

    try:
        check(json.loads(data, object_pairs_hook=_members), shape)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is malformed: it is not JSON") from error


def _members(members: list[tuple[str, Any]]) -> _Members:
    if len(dict(members)) < len(members):
        raise FormatError("an image's document is ambiguous: it has a member twice")
    return _Members(members)


def _structs(shape: Any) -> list[type[msgspec.Struct]]:
    """Return the structs that a type is made of."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        return [shape]
    return [found for each in get_args(shape) for found in _structs(each)]


def parse_config(data: bytes) -> ImageConfig:
    """Parse the config blob of an image.

    Raises:
        FormatError: malformed, ambiguous, or a diff_id that is no SHA-256 digest.
    """
    _check_names(data, ImageConfig, "the image config")
    config: ImageConfig = decode(data, ImageConfig, "the image config")
    for diff_id in config.rootfs.diff_ids:
        parse_digest(diff_id)
    return config


def layout_files(blobs: Mapping[Digest, bytes], manifest: Descriptor) -> dict[str, bytes]:
    """Return the files of an OCI layout that holds one image, by path below its folder."""
    index = Index(schema_version=2, manifests=(manifest,))
    files = {f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()}
    files["oci-layout"] = encode(LayoutMarker(LAYOUT_VERSION))
    files["index.json"] = encode(index)
    return files


_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(?::\d+)?"
_DOCKER_REFERENCE = re.compile(
    rf"(?:(?P<registry>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_LAYOUT_REFERENCE = re.compile(r"(?P<name>[^:\0\n]+)(?::(?P<tag>[^:@\0\n]+))?")
_OTHER_TRANSPORT = re.compile(
    r"(atomic|containers-storage|dir|docker-archive|docker-daemon|oci-archive|ostree|sif|tarball):.+"
)
_HUB = "docker.io"
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: ``docker://registry/name[:tag][@digest]`` or ``oci:folder[:tag]``.

    Attributes:
        transport: ``docker`` or ``oci``.
        name: Registry and repository, or the layout's folder.
        tag: Tag, or empty.
        digest: Digest of the manifest (``docker`` only), or empty.
    """

    transport: str
    name: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parse an image reference as Skopeo's and Docker's users write it.

        ``docker://busybox`` is ``docker.io/library/busybox:latest``. What begins with a
        registry needs no ``docker://``.

        Raises:
            FormatError: another transport, or not of that form.
        """
        other = other_transport(text)
        if other:
            raise FormatError(
                f"{text[:200]!r}: images are not read from or written to Skopeo's {other} here",
                hint=f"skopeo copy {text[:200]} oci:FOLDER:TAG, and name that",
            )
        if text.startswith("oci:"):
            match = _LAYOUT_REFERENCE.fullmatch(text.removeprefix("oci:"))
            if match is not None:
                return cls("oci", match["name"], match["tag"] or "")
        else:
            match = _DOCKER_REFERENCE.fullmatch(text.removeprefix("docker://"))
            if match is not None:
                named = _is_registry(match["registry"] or "")
                if named or text.startswith("docker://"):
                    return cls._of_registry(match, named=named)
        hint = "write it as docker://registry:port/name:tag or oci:folder"
        raise FormatError(f"{text[:200]!r} is not an image reference", hint=hint)

    @classmethod
    def _of_registry(cls, match: re.Match[str], *, named: bool) -> "Reference":
        registry, path = match["registry"], match["path"]
        if not named:  # what stands before the first slash is a name at Docker Hub
            path = f"{registry}/{path}" if registry else path
        if not named or registry == f"index.{_HUB}":
            registry = _HUB
        if registry == _HUB and "/" not in path:
            path = f"library/{path}"
        digest = match["digest"] or ""
        tag = match["tag"] or ("" if digest else "latest")
        name = f"{registry}/{path}"
        if len(name) > _MAX_NAME:
            raise FormatError(f"{name[:50]!r}… is longer than {_MAX_NAME} characters")
        return cls("docker", name, tag, digest)

    @property
    def registry(self) -> str:
        """Host and port of the registry; empty for a layout."""
        return self.name.partition("/")[0] if self.transport == "docker" else ""

    def pinned(self, digest: Digest) -> "Reference":
        """Return the reference to the same repository's manifest ``digest``.

        A layout cannot be asked by digest and is returned as it is.
        """
        if self.transport != "docker":
            return self
        return Reference("docker", self.name, "", digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag and not self.digest else ""
        if self.transport == "docker":
            return f"docker://{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")
        return f"oci:{self.name}{tag}"


def other_transport(text: str) -> str:
    """Return the transport of Skopeo's that a reference names and that is not ours, or empty."""
    match = _OTHER_TRANSPORT.fullmatch(text)
    return match[1] if match else ""


def _is_registry(host: str) -> bool:
    """Tell a registry from the first part of a name, as Docker does."""
    return host == "localhost" or host != host.lower() or bool(set(".:[") & set(host))
