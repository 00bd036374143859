# SPDX-License-Identifier: Apache-2.0
"""What a computation's names stand for is found out, and bound to the evidence before any key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from cocos._patience import Patience
from cocos.agent.fetch import Fetcher, Resolved
from cocos.agent.report import Level, Narrator, Place
from cocos.errors import StateError
from cocos.wire.kbs.protocol import Tee
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Dataset

_log = structlog.get_logger(__name__)


class Register(Protocol):
    """Measures events into what evidence shows; the attestation agent does."""

    async def tee(self) -> Tee: ...

    async def extend_runtime_measurement(
        self, domain: str, operation: str, content: str, /
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a computation, resolved: what is measured, and then fetched.

    Attributes:
        algorithm: The program's.
        datasets: In the manifest's order.
    """

    algorithm: Resolved
    datasets: tuple[Resolved, ...]


async def resolve(
    computation: Computation, fetcher: Fetcher, narrator: Narrator, patience: Patience
) -> Images:
    """Find out which images the computation's names stand for now.

    Raises:
        IntegrityError: one is not what the manifest says.
        CocosError: of the registry.
    """

    async def one(resource: str, part: Algorithm | Dataset) -> Resolved:
        narrator.at(Place("resolve", resource, part.source.url))
        found = await patience.ask(lambda: fetcher.resolve(part.source, part.hash))
        narrator.say(Level.INFO, f"{resource}: {part.source.url} is sha256:{found.digest}")
        return found

    algorithm = await one("algorithm", computation.algorithm)
    sets = [
        await one(f"datasets[{index}]", each) for index, each in enumerate(computation.datasets)
    ]
    return Images(algorithm, tuple(sets))


async def measure(
    register: Register | None, computation: Computation, images: Images, consumers: Sequence[bytes]
) -> None:
    """Bind what will run to the evidence, before any key is asked for.

    Args:
        register: Where to; None, insecurely, nowhere.
        computation: The manifest.
        images: What will be fetched.
        consumers: Who will get the result.

    Raises:
        StateError: this machine's evidence cannot show it, and is not sample evidence.
        UnreachableError: the attestation agent does not answer.
    """
    if register is None:
        _log.warning("computation.unmeasured", insecure=True, id=computation.id)
        return
    event = computation.event(
        images.algorithm.digest, [each.digest for each in images.datasets], consumers
    )
    result = await register.extend_runtime_measurement(*event.measured())
    if result == "OK":
        return
    tee = await register.tee()
    if tee is not Tee.SAMPLE:
        raise StateError(
            f"the computation cannot be bound to the evidence of this {tee} machine: its "
            f"attestation agent answers {result}",
            hint="switch the event log of the attestation agent on",
        )
    _log.warning("computation.unmeasured", insecure=True, tee="sample", id=computation.id)
