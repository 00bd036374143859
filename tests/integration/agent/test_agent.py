# SPDX-License-Identifier: Apache-2.0
"""The agent's work with real images, real Skopeo, real containers: how it succeeds and fails."""

import asyncio
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _agent import ALGO_KEY, DATA_KEY, Bed, Blind, bed, sample
from _images import algorithm, tar, write_layout
from _layouts import Layer, blob_path, gzipped, write

from cocos.agent.report import Level
from cocos.agent.service import AgentService
from cocos.agent.states import State
from cocos.attestation_agent.event import tagged_event
from cocos.errors import StateError
from cocos.host.images import layout
from cocos.host.images.skopeo import Skopeo
from cocos.wire import oci
from cocos.wire.json import encode
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.event import ComputationEvent

pytestmark = pytest.mark.integration

SCRIPT = 'echo "got $*"; busybox cat "$@" > /cocos/results/copy; echo problem >&2; exit 0'
ENV = ("PATH=/bin",)


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> str:
    algorithm(tmp_path / "algo", SCRIPT, env=ENV)
    return f"oci:{tmp_path}/algo"


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_layout(tmp_path / "data", [tar({"data/iris.csv": b"a,b\n1,2\n"})])
    return f"oci:{tmp_path}/data"


@pytest.fixture
async def encrypted(place: Bed, plain: str, tmp_path: Path) -> Path:
    await place.encrypt(plain, ALGO_KEY, f"oci:{tmp_path}/encrypted")
    return tmp_path / "encrypted"


def manifest(uri: object, *datasets: dict[str, Any], **more: Any) -> bytes:
    document = {"computation_id": "c-1", "algorithm": {"uri": str(uri)}, "datasets": datasets}
    document |= more
    return json.dumps(document).encode()


def secret(uri: object, key: object = ALGO_KEY, **more: Any) -> dict[str, Any]:
    return {
        "uri": str(uri),
        "encrypted": True,
        "kbs_resource_path": str(key),
        "kbs_url": "",
        **more,
    }


def opened(package: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package)) as files:
        return {name: files.read(name) for name in files.namelist()}


def measured(document: bytes, algorithm_: str, *datasets: str) -> ComputationEvent:
    """What must be measured: the images in these layouts."""
    found = [
        layout.read_manifest(Path(each.removeprefix("oci:")))[1].config.digest[7:]
        for each in (algorithm_, *datasets)
    ]
    computation = Computation.from_json(document)
    return computation.event(found[0], found[1:], computation.result_consumers)


async def test_the_main_job_through_a_registry(
    place: Bed, plain: str, data: str, registry: str
) -> None:
    algo = await place.encrypt(plain, ALGO_KEY, f"docker://{registry}/algo:v1")
    iris = await place.encrypt(data, DATA_KEY, f"docker://{registry}/iris:v1")
    place.order.clear()
    document = manifest(
        "",
        secret(iris, DATA_KEY, kbs_url="http://127.0.0.1:1/other"),
        algorithm=secret(algo),
    )
    memory = await place.run(document, local_sources=False)
    assert memory.told() == [
        ("ReceivingAlgorithm", "InProgress"),
        ("ReceivingData", "InProgress"),
        ("Running", "Starting"),
        ("Running", "InProgress"),
        ("Running", "Completed"),
        ("ConsumingResults", "Ready"),
        ("Complete", "Completed"),
    ]
    assert opened(memory.results[0]) == {
        "copy": b"a,b\n1,2\n",
        "stdout.log": b"got /cocos/datasets/iris.csv\n",
        "stderr.log": b"problem\n",
    }
    # Measured first, then keys, each from its own KBS.
    event = tagged_event(*measured(document, plain, data).measured())
    assert place.order[0] == f"measured {hashlib.sha256(event).hexdigest()}"
    assert set(place.order[1:2]) == {"unwrap cc_kbc::null"}
    assert place.order[-1] == "unwrap cc_kbc::http://127.0.0.1:1/other"


async def test_a_plain_image_needs_no_key(place: Bed, plain: str, data: str) -> None:
    memory = await place.run(manifest(plain, {"uri": data}))
    assert memory.told()[-1] == ("Complete", "Completed")
    assert not [each for each in place.order if each.startswith("unwrap")]


async def test_arguments_of_the_manifest(place: Bed, plain: str, data: str) -> None:
    path = "/cocos/datasets/renamed.csv"
    document = manifest(
        "",
        {"uri": data, "filename": "renamed.csv"},
        algorithm={"uri": plain, "args": [path, path]},
    )
    memory = await place.run(document)
    assert opened(memory.results[0])["copy"] == b"a,b\n1,2\n" * 2


async def test_no_datasets(place: Bed, tmp_path: Path) -> None:
    algorithm(tmp_path / "algo", "echo $#", env=ENV)
    memory = await place.run(manifest(f"oci:{tmp_path}/algo"))
    assert ("ReceivingData", "InProgress") not in memory.told()
    assert opened(memory.results[0])["stdout.log"] == b"0\n"


# --- nothing runs ---------------------------------------------------------------------


async def fails(place: Bed, document: bytes, **options: Any) -> dict[str, Any]:
    memory = await place.run(document, **options)
    assert ("Running", "InProgress") not in memory.told(), "the algorithm was run"
    assert not memory.results
    return memory.failure


def layer_of(folder: Path) -> str:
    return layout.read_manifest(folder)[1].layers[0].digest


async def test_encrypted_image_without_a_key(place: Bed, encrypted: Path) -> None:
    place.order.clear()
    details = await fails(place, manifest(f"oci:{encrypted}"))
    assert details["step"] == "resolve"
    assert details["resource"] == "algorithm"
    assert details["layer"] == layer_of(encrypted)
    assert "names no key" in details["reason"]
    assert place.order == [], "neither measured nor a key asked for"


async def test_plain_image_although_the_manifest_says_encrypted(place: Bed, data: str) -> None:
    details = await fails(place, manifest("", algorithm=secret(data)))
    assert "is not encrypted, but the manifest says" in details["reason"]
    assert details["layer"].startswith("sha256:")


async def test_half_encrypted_image(place: Bed, encrypted: Path, data: str) -> None:
    """One plain layer smuggled under the encrypted ones."""
    _, real = layout.read_manifest(encrypted)
    extra = layout.read_manifest(Path(data.removeprefix("oci:")))[1].layers[0]
    source = blob_path(Path(data.removeprefix("oci:")), extra.digest)
    blob_path(encrypted, extra.digest).write_bytes(source.read_bytes())
    config = json.loads(blob_path(encrypted, real.config.digest).read_bytes())
    config["rootfs"]["diff_ids"].append(extra.digest)
    rewrite(encrypted, layers=(*real.layers, extra), config=encode(config))
    details = await fails(place, manifest("", algorithm=secret(f"oci:{encrypted}")))
    assert details["layer"] == extra.digest
    assert "is not encrypted" in details["reason"]


def rewrite(
    folder: Path,
    *,
    layers: tuple[oci.Descriptor, ...] | None = None,
    config: bytes | None = None,
) -> None:
    """Rewrite a layout's manifest, digests consistent."""
    _, manifest_ = layout.read_manifest(folder)
    if config is not None:
        blob_path(folder, oci.digest_of(config)).write_bytes(config)
    described = (
        manifest_.config
        if config is None
        else oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config))
    )
    text = encode(oci.Manifest(2, described, layers or manifest_.layers))
    blob_path(folder, oci.digest_of(text)).write_bytes(text)
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(text), len(text))
    (folder / "index.json").write_bytes(encode(oci.Index(2, (entry,))))


async def test_another_key_than_the_manifest_names(place: Bed, encrypted: Path) -> None:
    place.order.clear()
    document = manifest("", algorithm=secret(f"oci:{encrypted}", DATA_KEY))
    details = await fails(place, document)
    assert f"is encrypted to {ALGO_KEY.uri}" in details["reason"]
    assert DATA_KEY.uri in details["reason"]
    assert details["layer"] == layer_of(encrypted)
    assert not [each for each in place.order if each.startswith("unwrap")]


async def test_wrong_key(place: Bed, encrypted: Path) -> None:
    key = bytes(32)
    place.keys.path(ALGO_KEY).write_bytes(key)
    details = await fails(place, manifest("", algorithm=secret(f"oci:{encrypted}")))
    assert details["code"] == "integrity"
    assert details["layer"] == layer_of(encrypted)
    assert key.hex() not in json.dumps(details)


async def test_key_of_a_wrong_length(place: Bed, encrypted: Path) -> None:
    place.keys.path(ALGO_KEY).write_bytes(b"x" * 31)
    details = await fails(place, manifest("", algorithm=secret(f"oci:{encrypted}")))
    assert "31" in details["reason"]


async def test_tampered_layer(place: Bed, encrypted: Path) -> None:
    _, manifest_ = layout.read_manifest(encrypted)
    layer = manifest_.layers[0]
    content = bytearray(blob_path(encrypted, layer.digest).read_bytes())
    content[len(content) // 2] ^= 1
    changed = oci.Descriptor(
        layer.media_type, oci.digest_of(bytes(content)), layer.size, layer.annotations
    )
    blob_path(encrypted, changed.digest).write_bytes(content)
    rewrite(encrypted, layers=(changed,))
    details = await fails(place, manifest("", algorithm=secret(f"oci:{encrypted}")))
    assert details["code"] == "integrity"
    assert details["layer"] == changed.digest
    assert "authentication code" in details["reason"]


async def test_plaintext_that_does_not_match_its_diff_id(place: Bed, tmp_path: Path) -> None:
    good = gzipped(tar({"iris.csv": b"good"}))
    lying = Layer(good.plain, good.blob, diff_id=oci.digest_of(b"something else"))
    write(tmp_path / "lying", [lying])
    details = await fails(place, manifest(f"oci:{tmp_path}/lying"))
    assert "diff_id" in details["reason"]
    assert details["layer"].startswith("sha256:")


async def test_pinned_hash(place: Bed, plain: str, tmp_path: Path) -> None:
    config = layout.read_manifest(tmp_path / "algo")[1].config.digest
    pinned = {"uri": plain, "hash": config}
    memory = await place.run(manifest("", algorithm=pinned))
    assert memory.told()[-1] == ("Complete", "Completed")


async def test_another_image_than_the_pinned_one(place: Bed, plain: str, tmp_path: Path) -> None:
    config = layout.read_manifest(tmp_path / "algo")[1].config.digest
    details = await fails(place, manifest("", algorithm={"uri": plain, "hash": "ab" * 32}))
    assert (details["step"], details["code"]) == ("resolve", "integrity")
    assert config in details["reason"]
    assert place.order == [], "neither measured nor a key asked for"


async def test_other_data_than_the_pinned(place: Bed, plain: str, data: str) -> None:
    details = await fails(place, manifest(plain, {"uri": data, "hash": "ab" * 32}))
    assert (details["step"], details["resource"]) == ("resolve", "datasets[0]")
    assert place.order == []


async def test_registry_down(place: Bed) -> None:
    details = await fails(place, manifest("docker://127.0.0.1:9/algo:v1"))
    assert details["code"] == "unreachable"
    assert "127.0.0.1:9" in details["reason"]


async def test_no_such_image(place: Bed, registry: str) -> None:
    details = await fails(place, manifest(f"docker://{registry}/nothing:v1"))
    assert details["code"] == "not-found"


async def test_folders_of_this_machine_are_refused_to_a_cvms(place: Bed, plain: str) -> None:
    details = await fails(place, manifest(plain), local_sources=False)
    assert details["code"] == "denied"


async def test_a_dataset_that_is_none(place: Bed, plain: str, tmp_path: Path) -> None:
    write_layout(tmp_path / "empty", [tar({})])
    details = await fails(place, manifest(plain, {"uri": f"oci:{tmp_path}/empty"}))
    assert (details["step"], details["resource"]) == ("unpack", "datasets")
    assert "datasets[0] holds no file" in details["reason"]


async def test_an_image_without_a_program(place: Bed, data: str) -> None:
    details = await fails(place, manifest(data))
    assert "names no program" in details["reason"]


async def test_measured_or_not_at_all(tool: Skopeo, tmp_path: Path, plain: str) -> None:
    """A machine whose evidence could not show the computation gets no key."""
    async with bed(tmp_path, tool, attester=Blind()) as place:
        encrypted = await place.encrypt(plain, ALGO_KEY, f"oci:{tmp_path}/encrypted")
        place.order.clear()
        details = await fails(place, manifest("", algorithm=secret(encrypted)))
    assert details["step"] == "measure"
    assert "cannot be bound" in details["reason"]
    assert place.order == []


async def test_event_log_switched_off(tool: Skopeo, tmp_path: Path, plain: str) -> None:
    async with bed(tmp_path, tool, measure=False) as place:
        details = await fails(place, manifest(plain))
    assert "NOT_ENABLED" in details["reason"]


async def test_sample_machines_go_on(tool: Skopeo, tmp_path: Path, plain: str) -> None:
    async with bed(tmp_path, tool, attester=sample()) as place:
        memory = await place.run(manifest(plain))
    assert memory.told()[-1] == ("Complete", "Completed")


async def test_attestation_agent_down(place: Bed, plain: str) -> None:
    await place.register.__aexit__()
    place.register = type(place.register)("127.0.0.1:9")
    async with place.register:
        details = await fails(place, manifest(plain))
    assert details["step"] == "measure"
    assert "127.0.0.1:9" in details["reason"]


# --- the algorithm fails, or tries something ------------------------------------------


async def test_exit_code_and_last_lines(place: Bed, tmp_path: Path) -> None:
    algorithm(tmp_path / "bad", "echo one; echo two >&2; exit 3", env=ENV)
    memory = await place.run(manifest(f"oci:{tmp_path}/bad"))
    assert memory.told()[-2:] == [("Running", "Failed"), ("Failed", "Failed")]
    details = memory.failure
    assert details["exit_code"] == 3
    assert set(details["tail"].splitlines()) == {"one", "two"}
    assert "exit code 3" in details["reason"]


async def test_time_limit(place: Bed, tmp_path: Path) -> None:
    algorithm(tmp_path / "slow", "busybox sleep 1000", env=ENV)
    memory = await place.run(manifest(f"oci:{tmp_path}/slow"), run_seconds=0.5)
    assert "did not end within 0.5 s" in memory.failure["reason"]


async def test_result_too_large(place: Bed, tmp_path: Path) -> None:
    script = "for n in 1 2; do busybox head -c 700000 /dev/zero > /cocos/results/$n; done"
    algorithm(tmp_path / "big", script, env=ENV)
    memory = await place.run(manifest(f"oci:{tmp_path}/big"), result_mib=1)
    assert memory.failure["step"] == "collect"
    assert memory.failure["code"] == "too-large"


async def test_links_in_results_lead_nowhere(place: Bed, tmp_path: Path) -> None:
    (tmp_path / "host-secret").write_text("key")
    script = (
        f"cd /cocos/results; busybox ln -s {tmp_path}/host-secret a; busybox ln -s / b; "
        "busybox ln -s /etc/shadow c; busybox mkfifo d; echo mine > stdout.log; echo out"
    )
    algorithm(tmp_path / "thief", script, env=ENV)
    memory = await place.run(manifest(f"oci:{tmp_path}/thief"))
    assert opened(memory.results[0]) == {
        "stdout.log": b"out\n",
        "stderr.log": b"",
        "stdout.log.result": b"mine\n",
    }


async def test_runs_as_the_images_user(place: Bed, tmp_path: Path) -> None:
    algorithm(tmp_path / "user", "busybox id -u; echo x > /cocos/results/x", env=ENV, user="1234:1")
    memory = await place.run(manifest(f"oci:{tmp_path}/user"))
    assert opened(memory.results[0])["stdout.log"] == b"1234\n"
    assert opened(memory.results[0])["x"] == b"x\n"


@pytest.mark.parametrize("level", ["", "info", "debug"])
async def test_output_reaches_the_log_only_if_asked_for(
    place: Bed, plain: str, data: str, level: str
) -> None:
    document = manifest(plain, {"uri": data}, agent_config={"log_level": level})
    memory = await place.run(document)
    # Two pipes: which of them is read first is nobody's promise.
    spoken = sorted(entry for entry in memory.logs if "got" in entry[1] or "problem" in entry[1])
    assert spoken == (
        [(Level.DEBUG, "got /cocos/datasets/iris.csv"), (Level.ERROR, "problem")]
        if level == "debug"
        else []
    )


def now(service: AgentService) -> State:
    return service.state


# --- one after the other --------------------------------------------------------------


async def test_stop_while_running_and_a_second_computation(
    place: Bed, plain: str, data: str, tmp_path: Path
) -> None:
    algorithm(tmp_path / "slow", "trap '' TERM; echo on; busybox sleep 1000", env=ENV)
    async with place.agent() as service:
        document = manifest(f"oci:{tmp_path}/slow", agent_config={"log_level": "debug"})
        service.accept(Computation.from_json(document))
        await place.memory.until_log("on")
        with pytest.raises(StateError, match="computation c-1"):
            service.accept(Computation.from_json(manifest(plain)))
        with pytest.raises(StateError, match="not another"):
            await service.stop("another")
        assert now(service) is State.RUNNING
        await service.stop("c-1")
        assert place.memory.told()[-1] == ("Stopped", "Stopped")
        assert now(service) is State.RECEIVING_MANIFEST
        assert not list((place.work / "computations").iterdir())
        assert not list((place.work / "containers/runc").iterdir())
        service.accept(Computation.from_json(manifest(plain, {"uri": data})))
        await service.wait()
        assert now(service) is State.COMPLETE
    assert len(place.memory.results) == 1


@pytest.mark.parametrize("event", ["ReceivingAlgorithm", "ReceivingData", "Running"])
async def test_stop_at_any_moment(place: Bed, plain: str, data: str, event: str) -> None:
    status = "Starting" if event == "Running" else "InProgress"
    async with place.agent() as service:
        service.accept(Computation.from_json(manifest(plain, {"uri": data})))
        await place.memory.until(event, status)
        await service.stop()
        assert not list((place.work / "computations").glob("*"))
        assert not list((place.work / "containers/bundles").glob("*"))
        assert now(service) is State.RECEIVING_MANIFEST


async def test_a_failed_computation_stays_until_stopped(place: Bed, data: str, plain: str) -> None:
    async with place.agent() as service:
        service.accept(Computation.from_json(manifest(data)))
        await service.wait()
        assert now(service) is State.FAILED
        with pytest.raises(StateError, match="Failed"):
            service.accept(Computation.from_json(manifest(plain)))
        await service.stop()
        service.accept(Computation.from_json(manifest(plain)))
        await service.wait()
        assert now(service) is State.COMPLETE


async def test_stop_while_nobody_takes_the_result(place: Bed, plain: str) -> None:
    place.memory.hold.clear()
    async with place.agent() as service:
        service.accept(Computation.from_json(manifest(plain)))
        await place.memory.until("ConsumingResults", "Ready")
        assert not list((place.work / "computations").iterdir()), "plaintext waits"
        await service.stop()
        assert now(service) is State.RECEIVING_MANIFEST
    assert place.memory.results == []


async def test_stop_with_nothing_to_stop(place: Bed) -> None:
    async with place.agent() as service:
        await service.stop("whatever")
        assert now(service) is State.RECEIVING_MANIFEST
    assert place.memory.events == []


async def test_what_a_killed_agent_left_is_removed(place: Bed) -> None:
    left = place.work / "computations" / "old" / "datasets"
    left.mkdir(parents=True)
    (left / "plaintext").touch()
    async with place.agent():
        assert not (place.work / "computations").exists()
    assert place.memory.events == [], "nothing says what it was"


async def test_a_computation_that_was_cut_off_is_reported_by_the_next_agent(
    place: Bed, tmp_path: Path
) -> None:
    algorithm(tmp_path / "algo", "sleep 1000", env=ENV)
    computation = Computation.from_json(manifest(f"oci:{tmp_path}/algo"))
    async with place.agent() as service:
        service.accept(computation)
        await place.memory.until("Running", "InProgress")
        # As the disk of a machine whose agent was killed now.
        shutil.copytree(place.work / "computations", tmp_path / "left", ignore=only_notes)
    (tmp_path / "left" / "torn").mkdir()
    (tmp_path / "left" / "torn" / "computation.json").write_bytes(b'{"id"')
    shutil.copytree(tmp_path / "left", place.work / "computations", dirs_exist_ok=True)
    place.memory.events.clear()
    async with place.agent():
        (event,) = place.memory.events
    assert (event.computation, event.type, event.status) == ("c-1", "Interrupted", "Failed")
    assert event.details["manifest"] == computation.digest().hex()
    assert "was killed" in event.details["reason"]
    assert not (place.work / "computations").exists()


def only_notes(folder: str, names: list[str]) -> set[str]:
    inside = Path(folder).name.startswith("c-1-")
    return {name for name in names if inside and name != "computation.json"}


async def test_many_stops_at_once(place: Bed, plain: str) -> None:
    async with place.agent() as service:
        service.accept(Computation.from_json(manifest(plain)))
        await asyncio.gather(*(service.stop() for _ in range(5)))
        assert now(service) is State.RECEIVING_MANIFEST
