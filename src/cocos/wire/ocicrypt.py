# SPDX-License-Identifier: Apache-2.0
"""Documents of ocicrypt's key-provider protocol, version 1 of its JSON.

A request has two halves, one of them null. Byte members of requests are standard base64.
Replies are written as arrays of integers, the only form that both ocicrypt (Go) and
ocicrypt-rs read, and are read in either form.

The *private options* of a layer ("optsdata": its AES key and nonce) are secrets: nothing
in this module puts them into a message or a representation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cocos._types import JsonObject
from cocos.crypto.kek import Wrapped, WrapType
from cocos.errors import FormatError
from cocos.wire.json import b64decode, decode, encode
from cocos.wire.kbs.protocol import ResourceUri
from cocos.wire.oci import Descriptor

PROVIDER = "attestation-agent"
"""Name of the provider in configurations, parameters and annotations."""

PUBLIC_OPTIONS = "org.opencontainers.image.enc.pubopts"
_ANNOTATION = "org.opencontainers.image.enc.keys.provider."
_PACKET_VERSION = "0.1.0"
_SYMKEY_BYTES = 32
_NONCE_BYTES = 16


class _Parameters(msgspec.Struct, rename={"parameters": "Parameters"}):
    parameters: dict[str, list[str]] | None = None


class _WrapHalf(msgspec.Struct):
    ec: _Parameters | None = None
    optsdata: str | None = None


class _UnwrapHalf(msgspec.Struct):
    dc: _Parameters | None = None
    annotation: str | None = None


class _Input(msgspec.Struct):
    op: str = ""
    keywrapparams: _WrapHalf | None = None
    keyunwrapparams: _UnwrapHalf | None = None


@dataclass(frozen=True, slots=True)
class WrapRequest:
    """Wrap a layer's private options.

    Attributes:
        parameters: What stood after ``provider:NAME:`` on the command line, decoded, for
            this provider only.
        options: The private options' JSON; secret.
    """

    parameters: tuple[str, ...]
    options: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnwrapRequest:
    """Unwrap an annotation packet.

    Attributes:
        parameters: As for wrapping; empty if the command line named another provider.
        annotation: The packet's JSON.
    """

    parameters: tuple[str, ...]
    annotation: bytes


def parse_wrap(data: bytes) -> WrapRequest:
    """Parse the input of WrapKey.

    Raises:
        FormatError: not JSON of that shape, no private options, or no parameters for us.
    """
    half = _input(data).keywrapparams
    if half is None or half.optsdata is None:
        raise FormatError("the key provider's input has no keywrapparams.optsdata")
    parameters = _own_parameters(half.ec)
    if not parameters:
        raise FormatError(f"the key provider's input has no parameters for {PROVIDER}")
    return WrapRequest(parameters, b64decode(half.optsdata, "keywrapparams.optsdata"))


def parse_unwrap(data: bytes) -> UnwrapRequest:
    """Parse the input of UnWrapKey.

    Raises:
        FormatError: not JSON of that shape, or no annotation.
    """
    half = _input(data).keyunwrapparams
    if half is None or half.annotation is None:
        raise FormatError("the key provider's input has no keyunwrapparams.annotation")
    annotation = b64decode(half.annotation, "keyunwrapparams.annotation")
    return UnwrapRequest(_own_parameters(half.dc), annotation)


def operation(data: bytes) -> str:
    """Return which operation the input asks for: ``keywrap`` or ``keyunwrap``.

    Raises:
        FormatError: another one, or not JSON of that shape.
    """
    op = _input(data).op
    if op not in {"keywrap", "keyunwrap"}:
        raise FormatError(f"the key provider knows no operation {op[:50]!r}")
    return op


def _input(data: bytes) -> _Input:
    document: _Input = decode(data, _Input, "the key provider's input")
    return document


def _own_parameters(config: _Parameters | None) -> tuple[str, ...]:
    # Other providers' parameters come along and may be private keys: never touched.
    if config is None or config.parameters is None:
        return ()
    values = config.parameters.get(PROVIDER, [])
    try:
        return tuple(b64decode(value, f"a parameter of {PROVIDER}").decode() for value in values)
    except UnicodeDecodeError as error:
        raise FormatError(f"a parameter of {PROVIDER} is not UTF-8") from error


def wrap_input(options: bytes, parameters: Sequence[str]) -> bytes:
    """Return the input of WrapKey as ocicrypt writes it."""
    config: JsonObject = {"Parameters": {PROVIDER: [p.encode() for p in parameters]}}
    config["DecryptConfig"] = {"Parameters": {}}
    return encode(
        {
            "op": "keywrap",
            "keywrapparams": {"ec": config, "optsdata": options},
            "keyunwrapparams": {"dc": None, "annotation": None},
        }
    )


def unwrap_input(annotation: bytes, parameters: Sequence[str]) -> bytes:
    """Return the input of UnWrapKey as ocicrypt writes it."""
    config = {"Parameters": {PROVIDER: [p.encode() for p in parameters]}}
    return encode(
        {
            "op": "keyunwrap",
            "keywrapparams": {"ec": None, "optsdata": None},
            "keyunwrapparams": {"dc": config, "annotation": annotation},
        }
    )


def wrap_output(annotation: bytes) -> bytes:
    """Return the reply of WrapKey."""
    return encode({"keywrapresults": {"annotation": list(annotation)}})


def unwrap_output(options: bytes) -> bytes:
    """Return the reply of UnWrapKey."""
    return encode({"keyunwrapresults": {"optsdata": list(options)}})


def parse_wrap_output(data: bytes) -> bytes:
    """Return the annotation packet of a reply to WrapKey, in either byte form.

    Raises:
        FormatError: not such a reply.
    """
    return _result(data, "keywrapresults", "annotation")


def parse_unwrap_output(data: bytes) -> bytes:
    """Return the private options of a reply to UnWrapKey, in either byte form.

    Raises:
        FormatError: not such a reply.
    """
    return _result(data, "keyunwrapresults", "optsdata")


def _result(data: bytes, half: str, member: str) -> bytes:
    reply: dict[str, JsonObject | None] = decode(
        data, dict[str, JsonObject | None], "the key provider's reply"
    )
    value = (reply.get(half) or {}).get(member)
    if isinstance(value, str):
        return b64decode(value, f"{half}.{member}")
    try:
        return bytes(msgspec.convert(value, list[int]))
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"the key provider's reply has no bytes in {half}.{member}") from error


class _PrivateOptions(msgspec.Struct):
    symkey: str
    cipheroptions: dict[str, str]
    digest: str = ""


def check_options(options: bytes) -> None:
    """Check a layer's private options before anybody decrypts with them.

    ocicrypt invents a nonce where there is none and crashes on one of the wrong length.

    Raises:
        FormatError: not private options with a 32-byte key and a 16-byte nonce.
    """
    try:
        private = msgspec.json.decode(options, type=_PrivateOptions)
        symkey = b64decode(private.symkey, "the layer key")
        nonce = b64decode(private.cipheroptions.get("nonce", ""), "the layer's nonce")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        # The decoder's message could quote the secret: without a cause.
        raise FormatError("the layer's private options are malformed") from None
    if len(symkey) != _SYMKEY_BYTES:
        raise FormatError(f"the layer key is {len(symkey)} bytes long, not {_SYMKEY_BYTES}")
    if len(nonce) != _NONCE_BYTES:
        raise FormatError(f"the layer's nonce is {len(nonce)} bytes long, not {_NONCE_BYTES}")


class _Packet(msgspec.Struct, omit_defaults=True):
    kid: str
    wrapped_data: str
    iv: str | None = None
    wrap_type: str | None = None
    version: str = _PACKET_VERSION
    provider: str = "kbs"
    provider_settings: dict[str, Any] = {}
    annotations: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Packet:
    """What the provider leaves in an image: whose key wraps a layer's private options.

    Attributes:
        key: Resource of the key-encryption key.
        wrapped: The wrapped private options.
    """

    key: ResourceUri
    wrapped: Wrapped

    @classmethod
    def parse(cls, data: bytes) -> "Packet":
        """Parse an annotation packet, version 1 or 2.

        Raises:
            FormatError: malformed, a key service other than a KBS, or an unknown version,
                wrap type or form of key id.
        """
        packet: _Packet = decode(data, _Packet, "the annotation packet")
        if packet.provider != "kbs":
            raise FormatError(f"the key service {packet.provider[:50]!r} is not supported")
        if packet.version != _PACKET_VERSION:
            raise FormatError(f"annotation packet version {packet.version[:50]!r} is not known")
        if packet.iv is None or packet.wrap_type is None:
            raise FormatError("the annotation packet has no iv or no wrap_type")
        try:
            wrap_type = WrapType(packet.wrap_type)
        except ValueError as error:
            raise FormatError(f"wrap type {packet.wrap_type[:50]!r} is not known") from error
        iv = b64decode(packet.iv, "the annotation packet's iv")
        data = b64decode(packet.wrapped_data, "the annotation packet's wrapped_data")
        return cls(parse_key_id(packet.kid), Wrapped(wrap_type, iv, data))

    def encode(self) -> bytes:
        """Return the packet in version 1, which every reader knows."""
        return encode(
            {
                "kid": str(self.key),
                "wrapped_data": self.wrapped.data,
                "iv": self.wrapped.iv,
                "wrap_type": self.wrapped.wrap_type.value,
            }
        )


def parse_key_id(text: str) -> ResourceUri:
    """Parse a key id in any of its forms, also those that old providers wrote.

    ``kbs://[host]/a/b/c``, ``kbs+plugin://[host]/…``, ``host/a/b/c``, ``/a/b/c``, ``a/b/c``.

    Raises:
        FormatError: none of these.
    """
    if "://" in text:
        return ResourceUri.parse(text)
    segments = text.removeprefix("/").split("/")
    own, with_host = 3, 4
    if len(segments) == with_host and not text.startswith("/"):
        segments = segments[1:]
    if len(segments) != own:
        raise FormatError(f"{text[:200]!r} is not a key id", hint="kbs:///repository/type/tag")
    return ResourceUri.parse("kbs:///" + "/".join(segments))


def layer_packets(layer: Descriptor) -> tuple[Packet, ...]:
    """Return the packets of our provider on a layer; none if it is not for us.

    Raises:
        FormatError: an annotation of ours that does not parse.
    """
    text = (layer.annotations or {}).get(_ANNOTATION + PROVIDER, "")
    pieces = [b64decode(piece, "the key annotation") for piece in text.split(",") if piece]
    return tuple(Packet.parse(piece) for piece in pieces)


def grpc_config(address: str) -> bytes:
    """Return ocicrypt's configuration for our provider at ``host:port`` or ``unix:/path``."""
    return encode({"key-providers": {PROVIDER: {"grpc": address}}})


def command_config(argv: Sequence[str]) -> bytes:
    """Return ocicrypt's configuration for our provider as a command."""
    command = {"path": argv[0], "args": list(argv[1:])}
    return encode({"key-providers": {PROVIDER: {"cmd": command}}})
