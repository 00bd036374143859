# SPDX-License-Identifier: Apache-2.0
"""cocos-agent: runs computations in a CVM."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from cocos._clock import system_clock
from cocos._types import JsonObject
from cocos.agent.config import ENVIRONMENT, AgentSettings
from cocos.agent.fetch import Fetcher
from cocos.agent.kept import Keep
from cocos.agent.local import FolderOutlet, LocalReporter
from cocos.agent.outbox import Outbox
from cocos.agent.registries import KbsCredentials
from cocos.agent.report import Reporter, Status
from cocos.agent.service import AgentService, Outlet
from cocos.agent.states import State
from cocos.agent.status import SaysStatus
from cocos.agent.stream import CvmsLoop, CvmsReporter, SealedOutlet
from cocos.cli import _common as common
from cocos.cli.guest import _settings as guest
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.cvms import Endpoint, Tls, connect
from cocos.errors import ConfigError, UsageError
from cocos.host import trees
from cocos.host.containers.caretaker import taken_care_of
from cocos.host.containers.runtime import Runtime
from cocos.host.files import read_certificates, read_file, read_input
from cocos.host.images import skopeo
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES, Computation

NAME = "cocos-agent"
FAILED = 1
KEPT = "kept"
"""In the work folder: a result that nobody has taken yet."""


_log = structlog.get_logger(__name__)

app = common.make_app(
    "Run computations in this CVM: fetch the encrypted images that a manifest names, decrypt "
    "them with keys that the KBS gives to this CVM only, run the algorithm without network, "
    "hand the result to its consumers.\n\n"
    "Without a command: take manifests from the CVMS (AGENT_CVM_GRPC_URL)."
)


def _option(text: str, *names: str) -> Any:
    """Describe an option; settings come from several places, so that None means not given."""
    return typer.Option(*names, help=text, show_default=False)


Config = Annotated[Path | None, _option("Settings, as TOML.", "-c", "--config-file")]
CvmsUrl = Annotated[
    str | None,
    _option("Address of the CVMS. [env var: AGENT_CVM_GRPC_URL; default: localhost:7001]"),
]
WorkFolder = Annotated[
    Path | None, _option("Where images are unpacked. [env var: COCOS_WORK_FOLDER; default: /cocos]")
]
WithoutCgroups = Annotated[
    bool | None,
    _option(
        "Run algorithms although control groups cannot limit them. "
        "[env var: COCOS_INSECURE_WITHOUT_CGROUPS]",
        "--insecure-without-cgroups",
    ),
]
RetrySeconds = Annotated[
    float | None,
    _option(
        "How long a computation waits, in all, for a registry or KBS that does not answer now; "
        "0: not at all. [env var: COCOS_RETRY_SECONDS; default: 60]",
        "--retry-seconds",
    ),
]
Once = Annotated[
    bool | None,
    _option(
        "End with the computation, as soon as the CVMS has stored its result, or why it failed. "
        "[env var: AGENT_ONCE]",
        "--once",
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar=["AGENT_LOG_LEVEL", "COCOS_LOG_LEVEL"], help="debug, info, warning or error."
    ),
]


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    *,
    config_file: Config = None,
    cvms_url: CvmsUrl = None,
    work_folder: WorkFolder = None,
    insecure_without_cgroups: WithoutCgroups = None,
    retry_seconds: RetrySeconds = None,
    once: Once = None,
    log_level: LogLevel = "info",
    debug: common.DebugFlag = False,
) -> None:
    """Serve the CVMS until SIGTERM, or with --once until its computation has ended."""
    if context.invoked_subcommand is not None:
        return
    common.configure_logs(log_level, debug=debug)
    settings = _settings(
        config_file,
        cvms_url=cvms_url,
        work_folder=work_folder,
        insecure_without_cgroups=insecure_without_cgroups,
        retry_seconds=retry_seconds,
        once=once,
    )
    common.run_async(_serve(settings))


@app.command()
def run(
    *,
    manifest: Annotated[Path, typer.Option("-m", "--manifest", help="What to run, as JSON.")],
    results: Annotated[
        Path,
        typer.Option("--output-dir", "--results", "-r", help="New or empty folder for the result."),
    ],
    insecure_unmeasured: Annotated[
        bool,
        typer.Option(
            "--insecure-unmeasured",
            help="Run without an attestation agent; only for images that are not encrypted.",
        ),
    ] = False,
    config_file: Config = None,
    work_folder: WorkFolder = None,
    insecure_without_cgroups: WithoutCgroups = None,
    retry_seconds: RetrySeconds = None,
    log_level: LogLevel = "warning",
    as_json: common.JsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Run one manifest here, without a CVMS. Exit code: 0 done, 1 the computation failed."""
    common.configure_logs(log_level, debug=debug)
    settings = _settings(
        config_file,
        work_folder=work_folder,
        insecure_without_cgroups=insecure_without_cgroups,
        retry_seconds=retry_seconds,
    )
    text = read_input(manifest, "the manifest", limit=MAX_MANIFEST_BYTES)
    computation = Computation.from_json(text)
    sources = [computation.algorithm.source, *(each.source for each in computation.datasets)]
    if insecure_unmeasured and any(source.encrypted for source in sources):
        raise UsageError(
            "keys are given only to computations that have been measured",
            hint="leave --insecure-unmeasured out and start attestation-agent",
        )
    failure = common.run_async(
        _run(settings, computation, results, measured=not insecure_unmeasured, as_json=as_json)
    )
    if failure is not None:
        raise typer.Exit(FAILED)


def _settings(config_file: Path | None, **flags: object) -> AgentSettings:
    return common.load_settings(
        AgentSettings,
        file=config_file,
        members={"aa_kbc_params": guest.aa_kbc_params()},
        environment=ENVIRONMENT,
        flags=flags,
    )


async def _serve(settings: AgentSettings) -> None:
    endpoint = Endpoint.parse(settings.cvms_url, cvm_id=settings.cvm_id, tls=_tls(settings))
    outbox = Outbox()
    reporter = SaysStatus(CvmsReporter(outbox, system_clock), _say)
    work = settings.work()
    keep = Keep(work / KEPT)
    async with _agent(settings, work, reporter, SealedOutlet(outbox, keep)) as service:
        loop = CvmsLoop(service, outbox, lambda: connect(endpoint), on_cvms=reporter.cvms)
        serving = asyncio.create_task(loop.run())
        tasks: set[asyncio.Task[Any]] = {serving, asyncio.create_task(common.wait_for_signal())}
        if settings.once:
            tasks.add(asyncio.create_task(loop.over.wait()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if serving in done:
            serving.result()


async def _run(
    settings: AgentSettings,
    computation: Computation,
    results: Path,
    *,
    measured: bool,
    as_json: bool,
) -> JsonObject | None:
    """Return why it failed, or None."""
    show = _show_json if as_json else _show_line
    reporter = LocalReporter(show, system_clock)
    outlet = FolderOutlet(results)
    work = settings.work()
    async with _agent(settings, work, reporter, outlet, measured=measured, local=True) as service:
        service.accept(computation)
        asked = asyncio.create_task(common.wait_for_signal())
        working = asyncio.create_task(service.wait())
        done, _ = await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if working not in done:
            await service.stop()
            return {"reason": "stopped"}
    if reporter.failure is None and not as_json:
        _show_result(results)
    return reporter.failure


@contextlib.asynccontextmanager
async def _credentials(
    settings: AgentSettings, agent: AttestationAgent | None
) -> AsyncIterator[KbsCredentials | None]:
    """Enter where the credentials for registries are; without evidence nobody gives them out."""
    uri = settings.registry_credentials
    if uri is None or agent is None:
        yield None
        return
    from cocos.clients.resources import KbsResources  # noqa: PLC0415 - most do without

    async with KbsResources(agent, url=settings.kbs, what="credentials") as resources:
        yield KbsCredentials(uri, resources)


@contextlib.asynccontextmanager
async def _agent(
    settings: AgentSettings,
    work: Path,
    reporter: Reporter,
    outlet: Outlet,
    *,
    measured: bool = True,
    local: bool = False,
) -> AsyncIterator[AgentService]:
    """Compose the agent; stop and clean up at the end."""
    tool = await skopeo.find()
    tool = skopeo.Skopeo(
        tool.argv,
        authfile=settings.authfile,
        registries=settings.registries,
        extra_root_certificates=settings.extra_root_certificates,
    )
    runtime = Runtime.find(
        work / "containers", insecure_without_cgroups=settings.insecure_without_cgroups
    )
    async with contextlib.AsyncExitStack() as stack:
        if settings.work_folder is None and work.name.startswith("cocos-agent-"):
            # Nobody would ever find it again if we were killed.
            care = taken_care_of(work / "computations", containers=work / "containers")
            await stack.enter_async_context(care)
            stack.callback(_discard, work)
        register = None
        if measured:
            register = await stack.enter_async_context(AttestationAgent(settings.attestation_agent))
        credentials = await stack.enter_async_context(_credentials(settings, register))
        service = AgentService(
            settings,
            work=work,
            fetcher=Fetcher(
                tool,
                settings.keyprovider_config,
                local_sources=local,
                credentials=credentials,
            ),
            runtime=runtime,
            register=register,
            reporter=reporter,
            outlet=outlet,
        )
        await service.start()
        stack.push_async_callback(service.close)
        yield service


def _discard(work: Path) -> None:
    """Remove a work folder of this process alone, but for a result that nobody has taken."""
    if (work / KEPT).exists():
        _log.warning("result.kept", path=str(work / KEPT), hint="only its consumers can open it")
        trees.discard(work / "containers")
    else:
        trees.discard(work)


def _tls(settings: AgentSettings) -> Tls | None:
    names = (settings.cvms_server_ca, settings.cvms_client_cert, settings.cvms_client_key)
    if names == (None, None, None):
        return None
    if (settings.cvms_client_cert is None) != (settings.cvms_client_key is None):
        raise ConfigError("a client certificate needs its key, and the other way round")
    texts = [
        None if path is None else read(path, what)
        for path, read, what in zip(
            names,
            (read_certificates, read_certificates, read_file),
            ("the CVMS's CA certificates", "the client certificate", "the client's key"),
            strict=True,
        )
    ]
    return Tls(*texts)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _show_json(entry: JsonObject) -> None:
    print(json.dumps(entry), flush=True)  # noqa: T201


def _show_line(entry: JsonObject) -> None:
    details = entry.get("details", {})
    if "log" in entry:
        common.stderr.print(f"  {entry['log']}", markup=False, style="dim")
        return
    common.stderr.print(f"{entry['event']}: {entry['status']}", markup=False)
    if entry["status"] == Status.FAILED and entry["event"] == State.RUNNING:
        return  # the event Failed comes at once, and says the same
    if "reason" in details:
        common.stderr.print(f"  {details['step']}: {details['reason']}", markup=False, style="red")
        if details.get("hint"):
            common.stderr.print(f"  hint: {details['hint']}")
    if details.get("tail"):
        common.stderr.print(details["tail"], markup=False, style="dim")


def _show_result(folder: Path) -> None:
    output = folder / "stdout.log"
    common.stdout.write(output.read_bytes())
    common.stderr.print(f"the result is in {folder}", markup=False)


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
