# SPDX-License-Identifier: Apache-2.0
"""CVMS and agent over loopback: the programs as people start them, and lost connections."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from _agent import ALGO_KEY, DATA_KEY, Bed, bed
from _cvms import Cvms, agent_program, cvms_test
from _images import algorithm, tar, write_layout
from _programs import running
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cocos._clock import system_clock
from cocos.agent.kept import Keep
from cocos.agent.outbox import Outbox
from cocos.agent.service import AgentService
from cocos.agent.stream import CvmsLoop, CvmsReporter, SealedOutlet
from cocos.clients.cvms import Endpoint, Tls, connect
from cocos.crypto import sealed
from cocos.cvms.order import consumer_key
from cocos.cvms.record import Verdict
from cocos.cvms.service import Ending
from cocos.errors import UnreachableError
from cocos.host import process
from cocos.host.archive import unzip
from cocos.host.images.skopeo import Skopeo
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Dataset, Source

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
SCRIPT = 'echo "got $*"; busybox cat "$@" > /cocos/results/copy'


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


@pytest.fixture
async def images(place: Bed, registry: str, tmp_path: Path) -> tuple[str, str]:
    """References of an encrypted algorithm and an encrypted dataset."""
    algorithm(tmp_path / "algo", SCRIPT, env=("PATH=/bin",))
    write_layout(tmp_path / "data", [tar({"data/iris.csv": b"a,b\n1,2\n"})])
    algo = await place.encrypt(f"oci:{tmp_path}/algo", ALGO_KEY, f"docker://{registry}/algo:v1")
    data = await place.encrypt(f"oci:{tmp_path}/data", DATA_KEY, f"docker://{registry}/data:v1")
    return algo, data


@pytest.fixture
def public(tmp_path: Path) -> Path:
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    (tmp_path / "private.pem").write_bytes(PRIVATE)
    return tmp_path / "public.pem"


def computation(algo: str, data: str) -> Computation:
    def source(url: str, key: object) -> Source:
        return Source("oci-image", url, encrypted=True, key=str(key), kbs="")

    return Computation(
        "c-1",
        Algorithm(source(algo, ALGO_KEY)),
        datasets=(Dataset(source(data, DATA_KEY)),),
        result_consumers=(consumer_key(PUBLIC),),
    )


@contextlib.asynccontextmanager
async def agent_at(
    place: Bed, address: str, *, tls: Tls | None = None
) -> AsyncIterator[AgentService]:
    outbox = Outbox()
    place.memory.event = CvmsReporter(outbox, system_clock).event  # type: ignore[method-assign]
    endpoint = Endpoint.parse(address, cvm_id="vm-1", tls=tls)

    async def soon(_: float) -> None:
        await asyncio.sleep(0.01)

    async with place.agent(
        outlet=SealedOutlet(outbox, Keep(place.work / "kept")), local_sources=False
    ) as service:
        loop = CvmsLoop(service, outbox, lambda: connect(endpoint), sleep=soon)
        task = asyncio.create_task(loop.run())
        try:
            yield service
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def result(path: Path, folder: Path) -> Mapping[str, bytes]:
    names = unzip(io.BytesIO(sealed.open_sealed(path.read_bytes(), PRIVATE)), folder)
    return {name: (folder / name).read_bytes() for name in names}


async def test_manifest_in_result_out(place: Bed, images: tuple[str, str], tmp_path: Path) -> None:
    cvms = Cvms(computation(*images), tmp_path / "results")
    async with cvms.serving() as address, agent_at(place, address):
        ending = await asyncio.wait_for(cvms.endings.get(), 60)
    assert ending == Ending(Verdict.COMPLETE)
    assert {"agent": "vm-1", "connected": True} in cvms.shown
    sealed_result = cvms.service.result_path.read_bytes()
    assert b"a,b" not in sealed_result
    assert result(cvms.service.result_path, tmp_path / "opened") == {
        "copy": b"a,b\n1,2\n",
        "stdout.log": b"got /cocos/datasets/iris.csv\n",
        "stderr.log": b"",
    }


async def test_a_cvms_that_goes_away_meanwhile_misses_nothing(
    place: Bed, images: tuple[str, str], tmp_path: Path
) -> None:
    cvms = Cvms(computation(*images), tmp_path / "results")
    async with contextlib.AsyncExitStack() as stack:
        async with cvms.serving() as address:
            service = await stack.enter_async_context(agent_at(place, address))
            await cvms.until(event="ReceivingAlgorithm")
        # Nobody is there while the work is done.
        await asyncio.wait_for(_ready(service), 60)
        async with cvms.serving(address):
            ending = await asyncio.wait_for(cvms.endings.get(), 60)
    assert ending == Ending(Verdict.COMPLETE)
    events = [(entry["event"], entry["status"]) for entry in cvms.shown if "event" in entry]
    assert events == [
        ("ReceivingAlgorithm", "InProgress"),
        ("ReceivingData", "InProgress"),
        ("Running", "Starting"),
        ("Running", "InProgress"),
        ("Running", "Completed"),
        ("ConsumingResults", "Ready"),
        ("Complete", "Completed"),
    ]
    accepted = [entry for entry in cvms.shown if "accepted" in entry]
    assert len(accepted) == 1, "a busy agent is not given work twice"
    assert result(cvms.service.result_path, tmp_path / "opened")["copy"] == b"a,b\n1,2\n"


async def _ready(service: AgentService) -> None:
    while service.state != "ConsumingResults":  # noqa: ASYNC110 - no one is told
        await asyncio.sleep(0.01)


async def test_tls_and_mutual_tls(place: Bed, images: tuple[str, str], tmp_path: Path) -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    server, client = ca.issue_cert("localhost"), ca.issue_cert("agent")
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    root = ca.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials([pair], root, require_client_auth=True)
    known = Tls(root, client.cert_chain_pems[0].bytes(), client.private_key_pem.bytes())
    cvms = Cvms(computation(*images), tmp_path / "results")
    async with cvms.serving("localhost:0", credentials) as address:
        for tls in (None, Tls(root), Tls(stranger.cert_pem.bytes(), known.certificate, known.key)):
            with pytest.raises(UnreachableError, match=address):
                async with connect(Endpoint.parse(address, tls=tls)) as stream:
                    await stream.receive()
        assert cvms.shown == []
        async with agent_at(place, address, tls=known):
            assert await asyncio.wait_for(cvms.endings.get(), 60) == Ending(Verdict.COMPLETE)


async def test_health_and_reflection(tmp_path: Path) -> None:
    cvms = Cvms(computation("docker://h:1/a", "docker://h:1/b"), tmp_path)
    async with cvms.serving() as address, aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="cvms_test_server"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for reply in stub.ServerReflectionInfo(iter([request])):
            names = {each.name for each in reply.list_services_response.service}
    assert "cvms.Service" in names


async def test_nobody_there() -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        async with connect(Endpoint.parse("http://127.0.0.1:9")):
            pass


# --- the programs ---------------------------------------------------------------------


async def test_the_guides_command_line(
    place: Bed, images: tuple[str, str], public: Path, tmp_path: Path
) -> None:
    algo, data = images
    async with running(
        "attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample"
    ) as attestation:
        cvms = await cvms_test(
            tmp_path,
            *("-public-key-path", str(public), "-attested-tls-bool", "false"),
            *("-kbs-url=http://127.0.0.1:8080", "-algo-type", "oci-image"),
            *("-algo-source-url", algo, "-algo-kbs-path", str(ALGO_KEY)),
            *("-dataset-type", "oci-image", "-dataset-source-url", data),
            *("-dataset-kbs-path", str(DATA_KEY), "-once", "--json"),
        )
        assert cvms.stdout is not None
        address = json.loads(await cvms.stdout.readline())["listening"]
        async with agent_program(place, address, attestation.address):
            output, errors = await asyncio.wait_for(cvms.communicate(), 60)
    entries = [json.loads(line) for line in output.splitlines()]
    assert cvms.returncode == 0, (entries, errors)
    assert entries[-1] == {"agent": "vm-1", "connected": False}
    assert "unwrap cc_kbc::http://127.0.0.1:8080" in place.order
    opened = await process.run(
        [BIN / "cocos-cli", "result", "1.zip.jwe", "--key", "private.pem"], cwd=tmp_path
    )
    assert opened.stdout == b"got /cocos/datasets/iris.csv\n"
    assert (tmp_path / "1-results/copy").read_bytes() == b"a,b\n1,2\n"


async def test_a_failing_computation_is_the_exit_code(
    place: Bed, registry: str, public: Path, tmp_path: Path
) -> None:
    algorithm(tmp_path / "bad", "echo the cause >&2; exit 3", env=("PATH=/bin",))
    await place.skopeo.copy(f"oci:{tmp_path}/bad", f"docker://{registry}/bad:v1")
    async with running(
        "attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample"
    ) as attestation:
        cvms = await cvms_test(
            tmp_path,
            *("-public-key-path", str(public), "-once"),
            *("--algo-source-url", f"docker://{registry}/bad:v1"),
        )
        assert cvms.stdout is not None
        line = (await cvms.stdout.readline()).decode()
        address = line.removeprefix("cvms-test: listening on ").strip()
        async with agent_program(place, address, attestation.address):
            output, _ = await asyncio.wait_for(cvms.communicate(), 60)
    assert cvms.returncode == 1
    assert b"exit_code: 3" in output
    assert b"tail: the cause" in output


async def test_refusals_of_the_command_line(tmp_path: Path, public: Path) -> None:
    async def refused(*arguments: str) -> str:
        cvms = await cvms_test(tmp_path, "-public-key-path", str(public), *arguments)
        _, errors = await asyncio.wait_for(cvms.communicate(), 60)
        assert cvms.returncode not in {0, 70}
        return errors.decode()

    url = ("-algo-source-url", "docker://h:1/x")
    assert "attested TLS is not available yet" in await refused("-attested-tls-bool", "true", *url)
    assert "'python' is not available yet" in await refused("-algo-type", "python", *url)
    assert "No such option" in await refused("-no-such-flag")
    assert "nothing.json is not there" in await refused("-manifest", "nothing.json")


async def test_local_run_of_the_guides_json(
    place: Bed, images: tuple[str, str], tmp_path: Path
) -> None:
    algo, data = images
    document = {
        "computation_id": "1",
        "algorithm": {"uri": algo, "encrypted": True, "kbs_resource_path": str(ALGO_KEY)},
        "datasets": [{"uri": data, "encrypted": True, "kbs_resource_path": str(DATA_KEY)}],
        "kbs_url": "http://127.0.0.1:8080",
    }
    (tmp_path / "m.json").write_text(json.dumps(document))
    line = [str(BIN / "cocos-agent"), "run", "--manifest", "m.json", "--results", "out", "--json"]
    env = {
        "OCICRYPT_KEYPROVIDER_CONFIG": str(place.config),
        "COCOS_INSECURE_WITHOUT_CGROUPS": "1",
        "COCOS_WORK_FOLDER": str(place.work),
    }
    refused = await process.run(
        [*line, "--insecure-unmeasured"], cwd=tmp_path, env=env, check=False
    )
    assert refused.exit_status == 2
    assert b"only to computations that have been measured" in refused.stderr
    async with running(
        "attestation-agent", "-a", "127.0.0.1:0", "--insecure-sample"
    ) as attestation:
        env["COCOS_AA_ADDRESS"] = attestation.address
        done = await process.run(line, cwd=tmp_path, env=env, timeout=60)
    events = [json.loads(entry) for entry in done.stdout.splitlines()]
    assert (events[-1]["event"], events[-1]["status"]) == ("Complete", "Completed")
    assert (tmp_path / "out/stdout.log").read_text() == "got /cocos/datasets/iris.csv\n"
    assert (tmp_path / "out/copy").read_bytes() == b"a,b\n1,2\n"


async def test_local_run_that_fails(tmp_path: Path) -> None:
    algorithm(tmp_path / "bad", "echo the cause >&2; exit 3")
    document = {"computation_id": "1", "algorithm": {"uri": f"oci:{tmp_path}/bad"}}
    (tmp_path / "m.json").write_text(json.dumps(document))
    line = [str(BIN / "cocos-agent"), "run", "-m", "m.json", "-r", "out", "--insecure-unmeasured"]
    env = {"COCOS_INSECURE_WITHOUT_CGROUPS": "1", "COCOS_WORK_FOLDER": str(tmp_path / "work")}
    failed = await process.run(line, cwd=tmp_path, env=env, check=False)
    assert failed.exit_status == 1
    assert b"failed with exit code 3" in failed.stderr
    assert b"the cause" in failed.stderr
    assert not (tmp_path / "out").exists()


async def test_a_foreign_message_is_no_end(place: Bed, tmp_path: Path) -> None:
    """A log forwarder of the original opens a second stream and is given no work."""
    cvms = Cvms(computation("docker://h:1/a", "docker://h:1/b"), tmp_path)
    async with cvms.serving() as address, aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(
            "/cvms.Service/Process",
            request_serializer=pb.ClientStreamMessage.SerializeToString,
            response_deserializer=pb.ServerStreamMessage.FromString,
        )(metadata=(("job-id", "vm-1"), ("connection-type", "log-forwarder")))
        entry = pb.AgentLog(message="hello", computation_id="c-1", level="INFO")
        await call.write(pb.ClientStreamMessage(agent_log=entry))
        await cvms.until(log="hello")
        await call.done_writing()
        assert await call.read() is aio.EOF
