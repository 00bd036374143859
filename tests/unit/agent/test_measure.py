# SPDX-License-Identifier: Apache-2.0
"""What will run is bound to the evidence, or does not run."""

import json

import pytest

from cocos.agent.fetch import Resolved
from cocos.agent.steps import Images, measure
from cocos.errors import StateError
from cocos.host.images.skopeo import Source as Found
from cocos.wire import oci
from cocos.wire.kbs.protocol import Tee
from cocos.wire.manifest.computation import Computation

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
