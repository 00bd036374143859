# SPDX-License-Identifier: Apache-2.0
"""cvms-test: gives one computation to every agent that connects, and shows what it does."""

import asyncio
import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cocos._clock import Clock, system_clock
from cocos._types import JsonObject
from cocos.cli import _common as common
from cocos.cli._screen import visible
from cocos.cvms.config import ENVIRONMENT, CvmsSettings
from cocos.cvms.order import Order, consumer_key, from_flags, from_manifest
from cocos.cvms.record import Verdict
from cocos.cvms.server import HEALTH_NAME, credentials, grpc_service
from cocos.cvms.service import CvmsService, Ending
from cocos.errors import FormatError, UnreachableError, UsageError
from cocos.host.files import read_file, read_input
from cocos.transport.rpc import serve
from cocos.wire.duration import parse_duration
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES, Computation

NAME = "cvms-test"
FAILED = 1
LOST_SECONDS = 60.0  # of silence, twice: an agent whose machine has vanished, or sleeps
_INDENT = " " * 12
HEARING_SECONDS = 45.0  # for an agent to come back; its pauses are shorter

app = common.make_app(
    "Give one computation to every agent that connects; show its events and logs, store its "
    "sealed result. Flags may be written as -name value, -name=value or with two dashes; "
    "lists are separated by commas."
)


def _flag(text: str, *names: str, hidden: bool = False) -> Any:
    """Describe a flag that may be written with one dash, as Go programs take it, or two."""
    spelled = [spelling for name in names for spelling in (f"--{name}", f"-{name}")]
    return typer.Option(*spelled, help=text, show_default=False, hidden=hidden)


PublicKey = Annotated[
    Path | None,
    _flag(
        "Public key, rsa or ecdsa, that can open the result, as PEM.",
        "public-key",
        "public-key-path",
    ),
]
Manifest = Annotated[
    Path | None, _flag("The whole computation, as JSON, instead of the options below.", "manifest")
]
AttestedTls = Annotated[str, _flag("Must be false: attested TLS comes later.", "attested-tls-bool")]
Id = Annotated[str, _flag("The computation's id. [default: 1]", "id")]
KbsUrl = Annotated[
    str,
    _flag(
        "KBS of resources without their own, with #token-key= (or #cert-sha256=, #ca=) that it is "
        "known by; else the CVM's.",
        "kbs",
        "kbs-url",
    ),
]
AlgoType = Annotated[str, _flag("oci-image: an image, run as a container.", "algo-type")]
AlgoSourceType = Annotated[str, _flag("Algorithm: oci-image.", "algo-source-type")]
AlgoUrl = Annotated[str, _flag("Algorithm: docker://HOST:PORT/NAME:TAG.", "algo-source-url")]
AlgoKey = Annotated[
    str,
    _flag(
        "Algorithm: key that it is encrypted to, repository/type/tag.", "algo-key", "algo-kbs-path"
    ),
]
AlgoKbs = Annotated[str, _flag("Algorithm: KBS that has the key.", "algo-kbs", "algo-kbs-url")]
AlgoArgs = Annotated[
    str, _flag("Algorithm: its arguments; else the paths of the datasets.", "algo-args")
]
AlgoHash = Annotated[str, _flag("Algorithm: hash that its image must have, hex.", "algo-hash")]
DataType = Annotated[str, _flag("Datasets: oci-image.", "dataset-type", "dataset-source-type")]
DataUrls = Annotated[
    list[str] | None, _flag("Datasets: images.", "dataset-source-urls", "dataset-source-url")
]
DataKeys = Annotated[
    list[str] | None,
    _flag(
        "Datasets: keys; an empty entry: plain.",
        "dataset-keys",
        "dataset-kbs-paths",
        "dataset-kbs-path",
    ),
]
DataKbs = Annotated[
    list[str] | None,
    _flag(
        "Datasets: KBSs that have the keys.", "dataset-kbs", "dataset-kbs-urls", "dataset-kbs-url"
    ),
]
DataHashes = Annotated[
    list[str] | None,
    _flag("Datasets: hashes that the images must have, hex.", "dataset-hash", "dataset-hashes"),
]
ClientCa = Annotated[
    str,
    _flag("For the agent: file with the CA of its clients.", "agent-client-ca", "client-ca-file"),
]
AgentLogLevel = Annotated[
    str, _flag("For the agent: with debug you see what the algorithm prints.", "agent-log-level")
]
_NAMES = {
    "kbs_url": "kbs",
    "algo_kbs_path": "algo_key",
    "algo_kbs_url": "algo_kbs",
    "dataset_kbs_paths": "dataset_keys",
    "dataset_kbs_urls": "dataset_kbs",
    "client_ca_file": "agent_client_ca",
}
# Known, so that a reader of the original's guide gets a reason instead of "no such option".
AlgoPath = Annotated[str, _flag("Not available yet.", "algo-path", hidden=True)]
DataPaths = Annotated[str, _flag("Not available yet.", "data-paths", hidden=True)]
DataUnpack = Annotated[str, _flag("Not available yet.", "dataset-decompress", hidden=True)]
Once = Annotated[
    bool, _flag("End with the computation; exit code 0 if it is complete, else 1.", "once")
]
AgentTimeout = Annotated[
    str,
    _flag(
        "With --once: end when no agent has been connected for that time, after one has been; 0: "
        "never. [default: 2m]",
        "agent-timeout",
    ),
]
ResultsDir = Annotated[
    Path | None, _flag("Where ID.zip.jwe is stored. [default: here]", "output-dir", "results-dir")
]
Host = Annotated[
    str | None, _flag("Host to listen on. [env var: HOST; default: localhost]", "host")
]
Port = Annotated[
    int | None, _flag("Port to listen on, 0: any free one. [env var: PORT; default: 7001]", "port")
]


@app.command()
def main_command(
    *,
    public_key_path: PublicKey = None,
    manifest: Manifest = None,
    attested_tls: AttestedTls = "false",
    id: Id = "1",  # noqa: A002 - the name of the flag
    kbs_url: KbsUrl = "",
    algo_type: AlgoType = "",
    algo_source_type: AlgoSourceType = "",
    algo_source_url: AlgoUrl = "",
    algo_kbs_path: AlgoKey = "",
    algo_kbs_url: AlgoKbs = "",
    algo_args: AlgoArgs = "",
    algo_hash: AlgoHash = "",
    algo_path: AlgoPath = "",
    data_paths: DataPaths = "",
    dataset_type: DataType = "",
    dataset_source_urls: DataUrls = None,
    dataset_kbs_paths: DataKeys = None,
    dataset_kbs_urls: DataKbs = None,
    dataset_hashes: DataHashes = None,
    dataset_decompress: DataUnpack = "",
    client_ca_file: ClientCa = "",
    agent_log_level: AgentLogLevel = "",
    once: Once = False,
    agent_timeout: AgentTimeout = "2m",
    results_dir: ResultsDir = None,
    host: Host = None,
    port: Port = None,
    log_level: common.LogLevel = "warning",
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM, or with -once until the computation has ended.

    TLS by SERVER_CERT and SERVER_KEY; SERVER_CA_CERTS or CLIENT_CA_CERTS make agents show
    a certificate.
    """
    given = dict(locals())
    common.configure_logs(log_level, debug=debug)
    flags: dict[str, object] = {"host": host, "port": port, "results_dir": results_dir}
    settings = common.load_settings(CvmsSettings, environment=ENVIRONMENT, flags=flags)
    patience = _patience(agent_timeout)
    computation = _computation(given, manifest, public_key_path)
    show = _with_next(_show_json if as_json else Timeline().show, public_key_path)
    ending = common.run_async(
        _serve(
            settings,
            computation,
            show,
            once=once,
            patience=patience if once else None,
            as_json=as_json,
        )
    )
    if ending is not None and ending.error is not None:
        raise ending.error
    if once and (ending is None or ending.verdict is not Verdict.COMPLETE):
        raise typer.Exit(FAILED)


def _computation(
    given: Mapping[str, Any], manifest: Path | None, public_key: Path | None
) -> Computation:
    key = None
    if public_key is not None:
        key = consumer_key(read_file(public_key, "the result consumer's public key"))
    names = [each.name for each in dataclasses.fields(Order) if given.get(each.name)]
    order = Order(**{name: given[name] for name in names})
    if manifest is None:
        return from_flags(order, key)
    extra = [name for name in names if name not in {"id", "attested_tls"}]
    if extra:
        flags = ", ".join("-" + _NAMES.get(name, name).replace("_", "-") for name in extra)
        raise UsageError(f"-manifest says all there is; leave out {flags}")
    text = read_input(manifest, "the manifest", limit=MAX_MANIFEST_BYTES)
    return from_manifest(Computation.from_json(text), key)


def _patience(text: str) -> float | None:
    """Return the longest time without an agent, in seconds; None: any."""
    if text == "0":
        return None
    try:
        return parse_duration(text, "-agent-timeout").total_seconds()
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from error


async def _serve(
    settings: CvmsSettings,
    computation: Computation,
    show: Callable[[JsonObject], None],
    *,
    once: bool,
    patience: float | None,
    as_json: bool,
) -> Ending | None:
    """Return how the computation ended, or None if a signal came first.

    Raises:
        UnreachableError: the agent has gone, and none has come back for ``patience`` seconds.
    """
    closing = asyncio.Event()
    endings: asyncio.Queue[Ending] = asyncio.Queue()
    service = CvmsService(computation, settings.results_dir, show, endings.put_nowait)
    async with serve(
        settings.address,
        [grpc_service(service, closing)],
        credentials=credentials(settings),
        health_names=[HEALTH_NAME],
        lost_after=LOST_SECONDS,
    ) as address:
        common.announce(NAME, address, as_json=as_json)
        service.resume()
        service.is_over = once and not endings.empty()
        if not service.is_over:
            show({"waiting": f"for an agent to connect to {address}"})
        asked = asyncio.create_task(common.wait_for_signal())
        ended = asyncio.create_task(_outcome(service, endings, once=once))
        alone = asyncio.create_task(_alone(service, None if service.is_over else patience))
        try:
            await asyncio.wait({asked, ended, alone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.set()  # streams have no end of their own
            for task in (asked, ended, alone):
                task.cancel()
    ending = ended.result() if ended.done() and not ended.cancelled() else None
    if ending is None and alone.done() and not alone.cancelled():
        alone.result()
    if ending is None or ending.error is None:
        service.close()
    return ending


async def _alone(service: CvmsService, patience: float | None) -> None:
    """Say so when the agent has gone; raise an error if none comes in time."""
    limit = "" if patience is None else f" within {patience:g} s"
    again = {"waiting": f"for an agent to connect again{limit}"}
    await service.presence.gone(patience, lambda: service.show(again))
    raise UnreachableError(
        f"the agent has gone, and none has connected{limit}: its VM or the manager of it has "
        "ended, or cannot reach us",
        hint="cocos-cli agent list says how VMs ended; -agent-timeout sets the time",
    )


async def _outcome(service: CvmsService, endings: asyncio.Queue[Ending], *, once: bool) -> Ending:
    """Return the first ending, or show them until one is of this CVMS itself.

    If an earlier run of ours had the ending, the agent may not have heard that, and keeps what
    it has until it does.
    """
    while True:
        ending = await endings.get()
        if service.is_over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.heard.wait(), HEARING_SECONDS)
        if once or ending.error is not None:
            return ending


def _with_next(
    show: Callable[[JsonObject], None], public_key: Path | None
) -> Callable[[JsonObject], None]:
    """Say beside a stored result how it is opened."""

    def shown(entry: JsonObject) -> None:
        if "result" in entry:
            entry = {**entry, "next": next_command(str(entry["result"]), public_key)}
        show(entry)

    return shown


def next_command(result: str, public_key: Path | None) -> str:
    """Return the command that opens a result, with the private key beside the public one.

    Where ``cocos-cli keys`` has not put it there, it is elsewhere, as it should be: then the
    command says what belongs in its place.
    """
    private = None if public_key is None else public_key.with_name("private.pem")
    key = "PRIVATE_KEY" if private is None or not private.is_file() else str(private)
    return shlex.join(["cocos-cli", "result", "--private-key", key, "--", result])


def _show_json(entry: JsonObject) -> None:
    print(json.dumps(entry), flush=True)  # noqa: T201


class Timeline:
    """Prints entries as lines, each with the time of day (UTC) at which it came.

    The times are ours: agents' clocks differ, and agents are not trusted. What an event says
    as the one before it did, such as the reason of a failure, is not said again.
    """

    def __init__(self, now: Clock = system_clock) -> None:
        self._now = now
        self._said: list[tuple[str, str]] = []

    def show(self, entry: JsonObject) -> None:
        """Print an entry."""
        lines = _lines(entry)
        if "event" in entry and "other" not in entry:
            first, *details = lines
            lines = [first, *(each for each in details if each not in self._said)]
            self._said = details
        for text, style in lines:
            whole = f"\n{_INDENT}".join(text.splitlines())  # no line of an agent's looks like ours
            common.stdout.print(visible(f"{self._now():%H:%M:%SZ} {whole}"), style=style)


def _lines(entry: JsonObject) -> list[tuple[str, str]]:
    """Return an entry as lines with their styles."""
    match entry:
        case {"log": text, "level": level}:
            return [(f"  {level:5} {text}", "dim")]
        case {"event": event, "status": status, **rest}:
            details = rest.get("details", {})
            other = f" (another computation, {rest['computation']})" if "other" in rest else ""
            lines = [(f"{event}: {status}{other}", "bold")]
            shown = {name: value for name, value in details.items() if name != "manifest"}
            lines += [(f"  {name}: {value}", "red") for name, value in shown.items()]
            return lines
        case {"accepted": accepted, "error": error}:
            return [
                ("manifest accepted", "") if accepted else (f"manifest refused: {error}", "red")
            ]
        case {"waiting": what}:
            line = (f"waiting {what}", "dim")
        case {"result": path, "next": command, **rest}:
            moved = [(f"an earlier result is {each} now", "") for each in rest.values()]
            stored = (f"sealed result stored in {path}", "green")
            return [*moved, stored, (f"next: {command}", "bold")]
        case {"agent": job, "connected": connected}:
            verb = "connected" if connected else "disconnected"
            line = (f"agent {job or 'without id'} {verb}", "")
        case _:
            line = (json.dumps(entry), "dim")
    return [line]


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
