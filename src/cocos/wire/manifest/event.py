# SPDX-License-Identifier: Apache-2.0
"""The event that is measured before a computation asks for any key.

The agent writes it and the verifier reads it, both by this one shape. It names what will
run: images as they were resolved, and what else decides about the run, each by a digest
that an owner can work out from a manifest (``cocos-cli computation digest``).
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.wire.json import canonical, decode
from cocos.wire.kbs.address import KbsAddress

EVENT_DOMAIN: Final = "cocos"
EVENT_OPERATION: Final = "computation"

_VERSION: Final = 1
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def digest_of_part(part: str, value: object) -> bytes:
    """Return the SHA-256 of the RFC 8785 JSON of a part of a computation, 32 bytes.

    Args:
        part: Name of the part; values of different parts never have the same digest.
        value: Frozen dataclasses and built-in values.
    """
    # The number is that of the layout of members in all parts; it changes when they do.
    return hashlib.sha256(canonical({"version": _VERSION, part: value})).digest()


def consumers_digest(keys: Sequence[bytes]) -> bytes:
    """Return the digest of the keys that a result goes to, 32 bytes.

    Without any, the result is in clear for whoever runs the agent.
    """
    return digest_of_part("consumers", keys)


class ComputationEvent(msgspec.Struct, frozen=True):
    """What will run, and whom it asks for keys; none can be missing.

    Digests are 64 lower-case hex digits.

    Attributes:
        algorithm: Digest of the config of the image that will run.
        arguments: Digest of what the manifest tells the program.
        consumers: Digest of the keys that the result goes to.
        datasets: Digests of the configs of the images that it will run on, in order.
        environment: Digest of how it is run and who sees its output.
        kbs: Addresses of the KBSs that it gets keys from, with what they are known by
            (:mod:`cocos.wire.kbs.address`), sorted, each once; empty text: the one of the
            init data.
        manifest: Digest of the whole manifest.
    """

    algorithm: str
    arguments: str
    consumers: str
    datasets: tuple[str, ...]
    environment: str
    kbs: tuple[str, ...]
    manifest: str

    def __post_init__(self) -> None:
        members = (self.algorithm, self.arguments, self.consumers, self.environment, self.manifest)
        if not all(map(_HEX.fullmatch, (*members, *self.datasets))):
            raise ValueError("a digest is not 64 lower-case hex digits")
        try:
            spelled = {str(KbsAddress.parse(each)) if each else "" for each in self.kbs}
        except FormatError as error:
            raise ValueError(error.message) from error
        if list(self.kbs) != sorted(spelled):
            raise ValueError("the KBSs are not in their one order and spelling")

    @classmethod
    def parse(cls, content: str) -> "ComputationEvent":
        """Read an event's content.

        Raises:
            FormatError: not byte for byte as :meth:`content` writes it.
        """
        what = "the event of a computation"
        event: ComputationEvent = decode(content, cls, what)
        if event.content() != content:
            raise FormatError(f"{what} is malformed: it is not canonical")
        return event

    def content(self) -> str:
        """Return the event's content: canonical JSON without blanks."""
        return canonical(self).decode("ascii")

    def measured(self) -> tuple[str, str, str]:
        """Return domain, operation and content, as a runtime register is extended with."""
        return EVENT_DOMAIN, EVENT_OPERATION, self.content()

    def claims(self) -> JsonObject:
        """Return what policies see of it."""
        return {
            "manifest_digest": self.manifest,
            "algorithm_digest": self.algorithm,
            "dataset_digests": list(self.datasets),
            "arguments_digest": self.arguments,
            "environment_digest": self.environment,
            "consumers_digest": self.consumers,
            "kbs": list(self.kbs),
        }
