# SPDX-License-Identifier: Apache-2.0
"""What is measured is what will run, whatever a registry serves before, meanwhile, afterwards.

Issue 8, B5 (a): the event that is extended before any key is asked for names the images as
they were resolved. A registry here answers otherwise from the moment on at which the event
has been measured.
"""

import base64
import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _agent import ALGO_KEY, Bed, Memory, RegisterTpm, bed
from _images import algorithm, busybox_layer, tar, write_layout
from _lying_registry import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LyingRegistry,
    lying_registry,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.agent.kept import Keep
from cocos.agent.local import FolderOutlet
from cocos.agent.outbox import Outbox
from cocos.agent.stream import SealedOutlet
from cocos.attestation_agent.event import tagged_event
from cocos.host.images import layout
from cocos.host.images.skopeo import Skopeo
from cocos.wire import oci
from cocos.wire.json import encode
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

ECHO = ("/bin/busybox", "echo")


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


@pytest.fixture
def registry() -> Iterator[LyingRegistry]:
    with lying_registry() as made:
        yield made


def manifest(url: str, *datasets: dict[str, Any], encrypted: bool = False, **more: Any) -> bytes:
    program: dict[str, Any] = {"uri": url}
    if encrypted:
        program |= {"encrypted": True, "kbs_resource_path": str(ALGO_KEY), "kbs_url": ""}
    document = {"computation_id": "c-1", "algorithm": program, "datasets": datasets, **more}
    return json.dumps(document).encode()


def honest(place: Bed) -> str:
    algorithm(place.folder / "honest", "", entrypoint=(*ECHO, "honest"))
    return f"oci:{place.folder}/honest"


async def encrypted(place: Bed) -> Path:
    await place.encrypt(honest(place), ALGO_KEY, f"oci:{place.folder}/encrypted")
    return place.folder / "encrypted"


def config_of(folder: Path) -> oci.Digest:
    return oci.parse_digest(layout.read_manifest(folder)[1].config.digest)


def evil_config(config: bytes) -> bytes:
    """The same layers, started in another way."""
    changed = json.loads(config)
    changed["config"]["Entrypoint"] = [*ECHO, "evil"]
    return json.dumps(changed).encode()


def evil(registry: LyingRegistry, digest: oci.Digest) -> tuple[oci.Digest, oci.Digest]:
    """Make an image of the same layers that runs something else; return manifest and config."""
    document = json.loads(registry.manifests[digest][1])
    config = evil_config(registry.blobs[document["config"]["digest"]])
    registry.blobs[oci.digest_of(config)] = config
    document["config"] |= {"digest": oci.digest_of(config), "size": len(config)}
    return registry.put(json.dumps(document).encode(), oci.MANIFEST), oci.digest_of(config)


def then(place: Bed, action: Callable[[], object]) -> None:
    """Have something happen when the event has been measured."""
    assert isinstance(place.machine, RegisterTpm)
    place.machine.and_then = action


def is_measured(place: Bed, document: bytes, algorithm_: str, *datasets: str) -> bool:
    computation = Computation.from_json(document)
    event = computation.event(
        algorithm_.removeprefix("sha256:"),
        [each.removeprefix("sha256:") for each in datasets],
        computation.result_consumers,
    )
    digest = hashlib.sha256(tagged_event(*event.measured())).hexdigest()
    assert [each for each in place.order if each.startswith("measured")] == place.order[:1]
    return place.order[:1] == [f"measured {digest}"]


def printed(memory: Memory) -> str:
    assert memory.told()[-1] == ("Complete", "Completed"), memory.failure
    with zipfile.ZipFile(io.BytesIO(memory.results[0])) as files:
        return files.read("stdout.log").decode().strip()


# --- before ---------------------------------------------------------------------------


async def test_an_image_that_the_manifest_does_not_pin(place: Bed, registry: LyingRegistry) -> None:
    """The registry chooses, as it may; but the claims name what it chose, before any key."""
    folder = await encrypted(place)
    digest, _ = registry.add(folder)
    other, config = evil(registry, digest)
    registry.tag(other)
    document = manifest(registry.url, encrypted=True)
    place.order.clear()
    memory = await place.run(document, local_sources=False)
    assert printed(memory) == "evil"
    assert is_measured(place, document, config)
    assert not is_measured(place, document, config_of(folder))
    assert place.order[1:] == ["unwrap cc_kbc::null"]


async def test_a_config_that_is_not_the_one_named(place: Bed, registry: LyingRegistry) -> None:
    folder = await encrypted(place)
    registry.tag(registry.add(folder)[0])
    config = config_of(folder)
    registry.blobs[config] = evil_config(registry.blobs[config])
    place.order.clear()
    memory = await place.run(manifest(registry.url, encrypted=True), local_sources=False)
    assert memory.failure["step"] == "resolve"
    assert place.order == [], "neither measured nor a key asked for"


async def test_a_platform_s_image_that_is_not_the_one_named(
    place: Bed, registry: LyingRegistry
) -> None:
    folder = await encrypted(place)
    digest, _ = registry.add(folder)
    registry.put_index(("amd64", digest))
    registry.manifests[digest] = registry.manifests[evil(registry, digest)[0]]
    place.order.clear()
    memory = await place.run(manifest(registry.url, encrypted=True), local_sources=False)
    assert memory.failure["step"] == "resolve"
    assert place.order == []


async def test_every_dataset_in_the_order_of_the_manifest(place: Bed) -> None:
    names = ["b", "a", "c"]
    configs = [
        write_layout(place.folder / name, [tar({f"{name}.csv": name.encode()})]) for name in names
    ]
    document = manifest(honest(place), *({"uri": f"oci:{place.folder}/{name}"} for name in names))
    assert printed(await place.run(document)) == " ".join(
        ["honest", *(f"/cocos/datasets/{name}.csv" for name in names)]
    )
    assert is_measured(place, document, config_of(place.folder / "honest"), *configs)


# --- meanwhile ------------------------------------------------------------------------


def tag_moved(registry: LyingRegistry, _honest: oci.Digest, other: oci.Digest) -> None:
    registry.tag(other)


def index_changed(registry: LyingRegistry, _honest: oci.Digest, other: oci.Digest) -> None:
    registry.put_index(("amd64", other), ("arm64", other))


def manifest_exchanged(registry: LyingRegistry, honest_: oci.Digest, other: oci.Digest) -> None:
    registry.manifests[honest_] = registry.manifests[other]
    registry.tag(other)


def config_exchanged(registry: LyingRegistry, honest_: oci.Digest, other: oci.Digest) -> None:
    configs = [
        json.loads(registry.manifests[each][1])["config"]["digest"] for each in (honest_, other)
    ]
    registry.blobs[configs[0]] = registry.blobs[configs[1]]


LIES = [tag_moved, index_changed, manifest_exchanged, config_exchanged]


@pytest.mark.parametrize("is_index", [False, True], ids=["image", "index"])
@pytest.mark.parametrize("is_secret", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("lie", LIES)
async def test_another_image_after_the_event(
    place: Bed,
    registry: LyingRegistry,
    lie: Callable[[LyingRegistry, oci.Digest, oci.Digest], None],
    is_secret: bool,
    is_index: bool,
) -> None:
    folder = await encrypted(place) if is_secret else Path(honest(place).removeprefix("oci:"))
    digest, _ = registry.add(folder)
    other, _ = evil(registry, digest)
    if is_index:
        registry.put_index(("arm64", other), ("amd64", digest))
    else:
        registry.tag(digest)
    then(place, lambda: lie(registry, digest, other))
    document = manifest(registry.url, encrypted=is_secret)
    place.order.clear()
    memory = await place.run(document, local_sources=False)
    assert is_measured(place, document, config_of(folder))
    if memory.results:
        assert printed(memory) == "honest"
    else:
        assert memory.failure["step"] == "fetch"
        assert memory.failure["code"] == "integrity"
    if lie in {tag_moved, index_changed}:
        assert memory.results, "a digest is not moved by moving a tag"


async def test_other_data_after_the_event(place: Bed, registry: LyingRegistry) -> None:
    for name in ("good", "other"):
        write_layout(place.folder / name, [tar({"data.csv": name.encode()})])
    digest, _ = registry.add(place.folder / "good")
    other, _ = registry.add(place.folder / "other")
    registry.tag(digest)

    def lie() -> None:
        manifest_exchanged(registry, digest, other)

    then(place, lie)
    document = manifest(honest(place), {"uri": registry.url})
    memory = await place.run(document)
    program = config_of(place.folder / "honest")
    assert is_measured(place, document, program, config_of(place.folder / "good"))
    assert (memory.failure["step"], memory.failure["resource"]) == ("fetch", "datasets[0]")


@pytest.mark.parametrize("is_secret", [False, True], ids=["plain", "encrypted"])
async def test_a_folder_exchanged_after_the_event(place: Bed, is_secret: bool) -> None:
    folder = await encrypted(place) if is_secret else Path(honest(place).removeprefix("oci:"))
    config = config_of(folder)
    write_layout(
        place.folder / "evil",
        [busybox_layer("evil")],
        oci.ContainerConfig(entrypoint=(*ECHO, "evil")),
    )
    source = f"oci:{place.folder}/evil"
    if is_secret:
        source = await place.encrypt(source, ALGO_KEY, f"oci:{place.folder}/evil-secret")
    other = Path(source.removeprefix("oci:"))

    def exchange() -> None:
        shutil.rmtree(folder)
        shutil.copytree(other, folder)

    then(place, exchange)
    document = manifest(f"oci:{folder}", encrypted=is_secret)
    place.order.clear()
    memory = await place.run(document)
    assert is_measured(place, document, config)
    assert (memory.failure["step"], memory.failure["code"]) == ("fetch", "integrity")


async def test_a_folder_of_the_same_layers_started_in_another_way(place: Bed) -> None:
    """Nothing of the copy but its layers counts: what is started is what was measured."""
    folder = Path(honest(place).removeprefix("oci:"))
    config = config_of(folder)

    def exchange() -> None:
        algorithm(folder, "", entrypoint=(*ECHO, "evil"))

    then(place, exchange)
    document = manifest(f"oci:{folder}")
    memory = await place.run(document)
    assert config_of(folder) != config
    assert is_measured(place, document, config)
    assert printed(memory) == "honest"


def docker_image(registry: LyingRegistry, word: str) -> tuple[oci.Digest, oci.Digest]:
    """Add an image as Docker pushes it; return the digests of manifest and config."""
    layer = busybox_layer("")
    blob = gzip.compress(layer, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [*ECHO, word], "Env": None, "Image": "sha256:0"},
            "history": [{"created_by": "COPY"}],
            "rootfs": {"type": "layers", "diff_ids": [oci.digest_of(layer)]},
        },
        indent=1,
    ).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG,
            "digest": oci.digest_of(config),
            "size": len(config),
        },
        "layers": [{"mediaType": DOCKER_LAYER, "digest": oci.digest_of(blob), "size": len(blob)}],
    }
    registry.blobs |= {oci.digest_of(each): each for each in (config, blob)}
    return registry.put(encode(document), DOCKER_MANIFEST), oci.digest_of(config)


@pytest.mark.parametrize("lie", [None, *LIES])
async def test_dockers_image_whose_config_is_rewritten_on_the_way(
    place: Bed,
    registry: LyingRegistry,
    lie: Callable[[LyingRegistry, oci.Digest, oci.Digest], None] | None,
) -> None:
    digest, config = docker_image(registry, "honest")
    other, _ = docker_image(registry, "evil")
    registry.tag(digest)
    if lie is not None:
        change = lie
        then(place, lambda: change(registry, digest, other))
    document = manifest(registry.url)
    memory = await place.run(document, local_sources=False)
    assert is_measured(place, document, config)
    if lie is None or memory.results:
        assert printed(memory) == "honest"
    else:
        assert (memory.failure["step"], memory.failure["code"]) == ("fetch", "integrity")


# --- who gets the result --------------------------------------------------------------


def consumer() -> tuple[bytes, list[dict[str, Any]]]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der, [{"user_key": base64.b64encode(der).decode()}]


async def test_consumers_are_those_that_the_result_is_sealed_to(place: Bed) -> None:
    der, named = consumer()
    document = manifest(honest(place), result_consumers=named)
    outbox = Outbox()
    async with place.agent(outlet=SealedOutlet(outbox, Keep(place.work / "kept"))) as service:
        computation = Computation.from_json(document)
        service.accept(computation)
        await place.memory.until("ConsumingResults", "Ready")
    assert computation.result_consumers == (der,)
    assert is_measured(place, document, config_of(place.folder / "honest"))


async def test_a_result_left_in_clear_is_not_measured_as_its_consumers(
    place: Bed, tmp_path: Path
) -> None:
    """``cocos-agent run`` hands it to whoever runs it: no policy on consumers accepts that."""
    document = manifest(honest(place), result_consumers=consumer()[1])
    await place.run(document, outlet=FolderOutlet(tmp_path / "results"))
    assert (tmp_path / "results" / "stdout.log").read_text() == "honest\n"
    config = config_of(place.folder / "honest")
    assert not is_measured(place, document, config)
    computation = Computation.from_json(document)
    event = computation.event(config.removeprefix("sha256:"), [], ())
    digest = hashlib.sha256(tagged_event(*event.measured())).hexdigest()
    assert place.order == [f"measured {digest}"]
