# SPDX-License-Identifier: Apache-2.0
"""The manifest: what is to be run, on what, for whom.

It arrives as protobuf (``cvms.ComputationRunReq``) or as JSON in one of two forms
(:mod:`cocos.wire.manifest.shapes`). All become one normalised :class:`Computation`; its
digest is the digest of the meaning, not of the spelling, and every member that
influences the run is in it.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from cocos.errors import FormatError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.manifest import rules, shapes
from cocos.wire.manifest.event import ComputationEvent, consumers_digest, digest_of_part
from cocos.wire.manifest.parts import OCI_IMAGE, AgentConfig, Algorithm, Dataset, Source
from cocos.wire.oci import other_transport

MAX_MANIFEST_BYTES = 4 * 2**20
HASH_BYTES = 32
UNPINNED = bytes(HASH_BYTES)
"""On the wire; agents of the original crash on anything shorter."""

_SCHEMES = {"docker": OCI_IMAGE, "oci": OCI_IMAGE, "gs": "gcs"}


@dataclass(frozen=True, slots=True)
class Computation:
    """A manifest that has passed every check that needs nothing but the manifest.

    Attributes:
        id: Chosen by the one who starts it; safe in file names.
        result_consumers: Public keys that can open the result, DER SubjectPublicKeyInfo.
    """

    id: str
    algorithm: Algorithm
    name: str = ""
    description: str = ""
    datasets: tuple[Dataset, ...] = ()
    result_consumers: tuple[bytes, ...] = ()
    agent_config: AgentConfig = field(default_factory=AgentConfig)

    def __post_init__(self) -> None:
        found = [
            *rules.identity(self.id, self.name, self.description),
            *rules.algorithm(self.algorithm),
            *rules.datasets(self.datasets),
            *rules.consumers(self.result_consumers),
            *rules.agent_config(self.agent_config),
        ]
        if found:
            raise FormatError(f"the manifest is refused: {'; '.join(found)}")

    @classmethod
    def from_proto(cls, data: bytes) -> "Computation":
        """Parse a serialized ``cvms.ComputationRunReq``.

        Raises:
            FormatError: not that message, or refused; all problems are listed.
        """
        _check_size(data)
        message = pb.ComputationRunReq()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise FormatError("the manifest is not a serialized ComputationRunReq") from error
        if not message.HasField("algorithm"):
            raise FormatError("the manifest is refused: algorithm: missing")
        algorithm = message.algorithm
        return cls(
            id=message.id,
            name=message.name,
            description=message.description,
            algorithm=Algorithm(
                _source_from_proto(algorithm),
                parse_pin(algorithm.hash),
                algorithm.algo_type or OCI_IMAGE,
                tuple(algorithm.algo_args),
                algorithm.userKey,
            ),
            datasets=tuple(
                Dataset(
                    _source_from_proto(each),
                    parse_pin(each.hash),
                    each.filename,
                    each.decompress,
                    each.userKey,
                )
                for each in message.datasets
            ),
            result_consumers=tuple(each.userKey for each in message.result_consumers),
            agent_config=AgentConfig(
                **{
                    each.name: getattr(message.agent_config, each.name)
                    for each in dataclasses.fields(AgentConfig)
                }
            ),
        )

    @classmethod
    def from_json(cls, data: bytes) -> "Computation":
        """Parse the guide's JSON form or the original agent's.

        Raises:
            FormatError: neither form, unknown members, or refused; all problems are listed.
        """
        _check_size(data)
        parsed = shapes.parse(data)
        if isinstance(parsed, shapes.Guide):
            return _from_guide(parsed)
        return _from_original(parsed)

    def to_proto(self) -> bytes:
        """Serialize as ``cvms.ComputationRunReq``."""
        message = pb.ComputationRunReq(
            id=self.id,
            name=self.name,
            description=self.description,
            algorithm=pb.Algorithm(
                hash=self.algorithm.hash or UNPINNED,
                userKey=self.algorithm.user_key,
                algo_type=self.algorithm.kind,
                algo_args=self.algorithm.args,
                **_source_to_proto(self.algorithm.source),
            ),
            datasets=[
                pb.Dataset(
                    hash=each.hash or UNPINNED,
                    userKey=each.user_key,
                    filename=each.filename,
                    decompress=each.decompress,
                    **_source_to_proto(each.source),
                )
                for each in self.datasets
            ],
            result_consumers=[pb.ResultConsumer(userKey=key) for key in self.result_consumers],
            agent_config=pb.AgentConfig(**dataclasses.asdict(self.agent_config)),
        )
        return message.SerializeToString()

    def digest(self) -> bytes:
        """Return the digest of the whole manifest, 32 bytes."""
        return digest_of_part("computation", self)

    def arguments_digest(self) -> bytes:
        """Return the digest of what the program is told: arguments, names of its data.

        Without arguments it gets the paths of its data, which those names are part of.
        """
        return arguments_digest(self.algorithm.args, [each.filename for each in self.datasets])

    def environment_digest(self) -> bytes:
        """Return the digest of how the program is run, and of who sees what it prints.

        Its variables come from its image alone.
        """
        return environment_digest(self.algorithm.kind, self.agent_config)

    def consumers_digest(self) -> bytes:
        """Return the digest of the keys that can open the result."""
        return consumers_digest(self.result_consumers)

    def kbs(self) -> tuple[str, ...]:
        """Return the addresses of the KBSs that keys come from, sorted, each once.

        An empty one is the KBS that the CVM was started with.
        """
        sources = [self.algorithm.source, *(each.source for each in self.datasets)]
        return tuple(sorted({each.kbs for each in sources if each.kbs is not None}))

    def event(
        self, algorithm: str, datasets: Sequence[str], consumers: Sequence[bytes]
    ) -> ComputationEvent:
        """Return the event that is measured before a run.

        Args:
            algorithm: Digest of the config of the image that will run, hex.
            datasets: The same of each dataset, in order.
            consumers: The keys that the result really goes to.
        """
        return ComputationEvent(
            algorithm=algorithm,
            arguments=self.arguments_digest().hex(),
            consumers=consumers_digest(consumers).hex(),
            datasets=tuple(datasets),
            environment=self.environment_digest().hex(),
            kbs=self.kbs(),
            manifest=self.digest().hex(),
        )


def arguments_digest(args: Sequence[str], filenames: Sequence[str]) -> bytes:
    """Return :meth:`Computation.arguments_digest` of any computation that tells the same."""
    return digest_of_part("arguments", {"args": args, "filenames": filenames})


def environment_digest(kind: str, config: AgentConfig) -> bytes:
    """Return :meth:`Computation.environment_digest` of any computation that is run so."""
    return digest_of_part("environment", {"algo_type": kind, "agent_config": config})


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MANIFEST_BYTES:
        raise FormatError(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")


def make_source(type_: str, url: str, key: str, *, encrypted: bool, kbs: str | None) -> Source:
    """Return a normalised source: type and scheme made explicit, no KBS where none is needed.

    Args:
        type_: Kind of source; empty: by the scheme of ``url``.
        url: Without a scheme it is an image at a registry.
        key: Resource path of the key, or empty.
        encrypted: The owner says that it is.
        kbs: Address (:mod:`cocos.wire.kbs.address`); empty: the CVM's own; None: no KBS.
    """
    scheme = re.match(r"([a-z0-9]+):(?://|/)", url)
    if scheme is not None:
        type_ = type_ or _SCHEMES.get(scheme[1], scheme[1])
    else:
        type_ = type_ or OCI_IMAGE
        if url and type_ == OCI_IMAGE and not other_transport(url):
            url = f"docker://{url}"
    address = None if kbs is None or not encrypted else _kbs(kbs)
    return Source(type_, url, encrypted, key, address)


def _kbs(text: str) -> str:
    """Return the address of a KBS in its one spelling; one that is none is refused later."""
    try:
        return str(KbsAddress.parse(text)) if text.strip("/") else ""
    except FormatError:
        return text


def _source_from_proto(message: pb.Algorithm | pb.Dataset) -> Source:
    source = message.source
    return make_source(
        source.type,
        source.url,
        source.kbs_resource_path,
        encrypted=source.encrypted,
        kbs=message.kbs.url if message.kbs.enabled else None,
    )


def _source_to_proto(source: Source) -> dict[str, Any]:
    return {
        "source": pb.Source(
            type=source.type,
            url=source.url,
            kbs_resource_path=source.key,
            encrypted=source.encrypted,
        ),
        "kbs": None if source.kbs is None else pb.KBSConfig(url=source.kbs, enabled=True),
    }


def parse_pin(value: bytes | shapes.Hash) -> bytes:
    """Return a hash as bytes, empty for all zeros; its length is checked with the rest.

    Raises:
        FormatError: neither hex text nor bytes.
    """
    try:
        if isinstance(value, str):
            value = bytes.fromhex(value.removeprefix("sha256:"))
        value = bytes(value)
    except ValueError as error:
        raise FormatError(
            "a hash in the manifest is neither hex text nor an array of bytes"
        ) from error
    return b"" if value == UNPINNED else value


def _from_guide(parsed: shapes.Guide) -> Computation:
    def source(each: shapes.GuideResource) -> Source:
        kbs = parsed.kbs_url if each.kbs_url is None else each.kbs_url
        return make_source(
            each.type, each.uri, each.kbs_resource_path, encrypted=each.encrypted, kbs=kbs
        )

    algorithm = parsed.algorithm
    return Computation(
        id=parsed.computation_id,
        name=parsed.name,
        description=parsed.description,
        algorithm=Algorithm(
            source(algorithm),
            parse_pin(algorithm.hash),
            args=algorithm.args,
            user_key=algorithm.user_key,
        ),
        datasets=tuple(
            Dataset(source(each), parse_pin(each.hash), each.filename, user_key=each.user_key)
            for each in parsed.datasets
        ),
        result_consumers=tuple(each.user_key for each in parsed.result_consumers),
        agent_config=_agent_config(parsed.agent_config),
    )


def _from_original(parsed: shapes.Original) -> Computation:
    def source(each: shapes.Algorithm | shapes.Dataset) -> Source:
        kbs = each.kbs.url if each.kbs is not None and each.kbs.enabled else None
        return make_source(
            each.source.type,
            each.source.url,
            each.source.kbs_resource_path,
            encrypted=each.source.encrypted,
            kbs=kbs,
        )

    algorithm = parsed.algorithm
    return Computation(
        id=parsed.id,
        name=parsed.name,
        description=parsed.description,
        algorithm=Algorithm(
            source(algorithm),
            parse_pin(algorithm.hash),
            algorithm.algo_type or OCI_IMAGE,
            algorithm.algo_args,
            algorithm.user_key,
        ),
        datasets=tuple(
            Dataset(
                source(each), parse_pin(each.hash), each.filename, each.decompress, each.user_key
            )
            for each in parsed.datasets
        ),
        result_consumers=tuple(each.user_key for each in parsed.result_consumers),
        agent_config=_agent_config(parsed.agent_config),
    )


def _agent_config(parsed: shapes.AgentConfig) -> AgentConfig:
    names = (each.name for each in dataclasses.fields(AgentConfig))
    return AgentConfig(**{name: getattr(parsed, name) for name in names})
