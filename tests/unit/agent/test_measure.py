# SPDX-License-Identifier: Apache-2.0
"""What will run is found out and bound to the evidence, or does not run."""

import json
from typing import cast

import pytest

from cocos._patience import Patience, Wait
from cocos.agent.binding import Images, measure, resolve
from cocos.agent.fetch import Fetcher, Resolved
from cocos.agent.report import Level, Place
from cocos.errors import StateError, UnreachableError
from cocos.host.images.skopeo import Source as Found
from cocos.wire import oci
from cocos.wire.kbs.protocol import Tee
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Source

MANIFEST = {"computation_id": "1", "algorithm": {"uri": "h:1/x"}, "datasets": [{"uri": "h:1/d"}]}
COMPUTATION = Computation.from_json(json.dumps(MANIFEST).encode())


def resolved(name: str) -> Resolved:
    config = oci.Descriptor(oci.CONFIG, oci.digest_of(name.encode()), 5)
    reference = oci.Reference.parse(f"docker://h:1/{name}:v1")
    found = Found(reference, oci.digest_of(b"manifest"), oci.Manifest(2, config, ()))
    return Resolved(COMPUTATION.algorithm.source, found, oci.ImageConfig(oci.RootFs(())))


IMAGES = Images(resolved("x"), (resolved("d"),))


class Register:
    """One that answers what it is told to."""

    def __init__(self, tee: Tee, answer: str) -> None:
        self.events: list[tuple[str, str, str]] = []
        self._tee = tee
        self._answer = answer

    async def tee(self) -> Tee:
        return self._tee

    async def extend_runtime_measurement(self, domain: str, operation: str, content: str) -> str:
        self.events.append((domain, operation, content))
        return self._answer


@pytest.mark.parametrize("tee", Tee)
@pytest.mark.parametrize("answer", ["OK", "NOT_SUPPORTED", "NOT_ENABLED", "", "ok", "something"])
async def test_only_sample_evidence_runs_unmeasured(tee: Tee, answer: str) -> None:
    register = Register(tee, answer)
    if answer == "OK" or tee is Tee.SAMPLE:
        await measure(register, COMPUTATION, IMAGES, [b"consumer"])
    else:
        with pytest.raises(StateError, match=f"cannot be bound to the evidence of this {tee} "):
            await measure(register, COMPUTATION, IMAGES, [b"consumer"])
    digests = [oci.digest_of(name).removeprefix("sha256:") for name in (b"x", b"d")]
    event = COMPUTATION.event(digests[0], digests[1:], [b"consumer"])
    assert register.events == [event.measured()]


async def test_without_a_register_nothing_is_measured() -> None:
    await measure(None, COMPUTATION, IMAGES, [])


class Registry:
    """One that is away at first, and then has every image."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []

    async def resolve(self, source: Source, pin: bytes) -> Resolved:
        self.asked.append((source.url, pin))
        if len(self.asked) == 1:
            raise UnreachableError("nobody is there yet")
        return resolved(source.url.rpartition("/")[2])


class Told:
    """Remembers what it is told, in its order."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def at(self, place: Place) -> None:
        self.heard.append(place)

    def say(self, level: Level, message: str) -> None:
        self.heard.append((level, message))


async def at_once(_seconds: float) -> None: ...


async def test_every_image_is_found_out_with_its_pin_and_in_its_place() -> None:
    pins = [bytes([number]) * 32 for number in (1, 2, 3)]
    document = {
        "computation_id": "1",
        "algorithm": {"uri": "docker://h:1/x", "hash": pins[0].hex()},
        "datasets": [
            {"uri": "docker://h:1/d", "hash": pins[1].hex()},
            {"uri": "docker://h:1/e", "hash": pins[2].hex()},
        ],
    }
    computation = Computation.from_json(json.dumps(document).encode())
    registry, told = Registry(), Told()
    waits: list[Wait] = []
    patience = Patience(60, tell=waits.append, sleep=at_once)
    found = await resolve(computation, cast("Fetcher", registry), told, patience)
    urls = [f"docker://h:1/{name}" for name in "xde"]
    assert registry.asked == list(zip([urls[0], *urls], [pins[0], *pins], strict=True))
    assert len(waits) == 1
    digests = [resolved(name).digest for name in "xde"]
    assert [found.algorithm.digest, *(each.digest for each in found.datasets)] == digests
    names = ["algorithm", "datasets[0]", "datasets[1]"]
    said = [
        each
        for name, url, digest in zip(names, urls, digests, strict=True)
        for each in (
            Place("resolve", name, url),
            (Level.INFO, f"{name}: {url} is sha256:{digest}"),
        )
    ]
    assert told.heard == said
