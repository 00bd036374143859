# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli evidence``: look at evidence in a file, and verify it."""

import dataclasses
import datetime as dt
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cocos._clock import system_clock
from cocos._types import JsonObject, ReportData
from cocos.cli import _common as common
from cocos.cli._screen import visible
from cocos.cli.owner import evidence_files
from cocos.errors import EvidenceError, Finding, FormatError, UsageError
from cocos.evidence import hcl, quote, snp, snp_json, tpm
from cocos.host.collateral import CollateralFolder, default_folder
from cocos.host.files import read_input
from cocos.verifiers import Expected, Verifier, VerifierTable, verifier_table
from cocos.verifiers._azure import AzureEvidence
from cocos.wire import json as wire_json
from cocos.wire.kbs.protocol import Tee

_MOST_BYTES: Final = 16 * 2**20
_PROBE_BYTES: Final = 48

app = common.make_app("Look at evidence in a file, and verify it.")

File = Annotated[Path, typer.Argument(help="JSON as the guest sends it, or a raw report or quote.")]
OfTee = Annotated[Tee, typer.Option("--tee", help="What made it.")]
Certificates = Annotated[
    list[Path],
    typer.Option("--certificate", help="Certificates beside it, as PEM or DER; repeatable."),
]
Log = Annotated[
    Path | None, typer.Option("--event-log", help="The firmware's log that comes beside it.")
]


@app.command("verify")
def verify(
    file: File,
    *,
    tee: OfTee,
    report_data: Annotated[
        str | None, typer.Option(help="What it has to be bound to, in hex.")
    ] = None,
    no_report_data: Annotated[
        bool, typer.Option("--no-report-data", help="Do not ask whether it is fresh.")
    ] = False,
    init_data: Annotated[
        str | None, typer.Option(help="Digest of the init data that it has to show, in hex.")
    ] = None,
    certificate: Certificates = [],  # noqa: B006 - Typer copies it
    collateral: Annotated[
        Path | None, typer.Option(help="Folder of what makers publish; by default yours.")
    ] = None,
    event_log: Log = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no network; it never does while it verifies.")
    ] = False,
    at: Annotated[
        str | None, typer.Option(help="When certificates have to be valid: 2026-08-01T12:00:00Z.")
    ] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Verify evidence: prints its claims, and ends with 0 only if every step held.

    Otherwise it ends with 1, and says every check that failed.
    """
    del offline  # a promise that holds anyway
    if (report_data is None) is not no_report_data:
        raise UsageError(
            "say what the evidence has to be bound to, or that this is not to be checked",
            hint="--report-data HEX, or --no-report-data: old evidence then verifies, too",
        )
    bound = None if report_data is None else ReportData(_hex(report_data, "--report-data"))
    digest = None if init_data is None else _hex(init_data, "--init-data")
    now = system_clock() if at is None else _time(at)
    table = verifier_table(
        insecure_allow_sample=False,
        clock=lambda: now,
        collateral=CollateralFolder(collateral or default_folder()),
    )
    shown, findings, hint = _judged(
        lambda: _load(tee, file, certificate, event_log), tee, table, bound, digest
    )
    result = {
        "verified": not findings,
        "claims": shown,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    common.emit(result, lambda: _print(shown, findings, hint), as_json=as_json)
    if findings:
        raise typer.Exit(1)


@app.command("show")
def show(
    file: File,
    *,
    tee: OfTee,
    certificate: Certificates = [],  # noqa: B006 - Typer copies it
    event_log: Log = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Print the fields of evidence, and judge nothing: anybody can have made it."""
    evidence = _load(tee, file, certificate, event_log)
    rows = evidence_files.fields(_parsed(tee, evidence))
    width = max((len(name) for name, _ in rows), default=0)

    def human() -> None:
        for name, value in rows:
            print(f"{_line(name):{width}}  {_line(value)}")  # noqa: T201 - the result

    common.emit(dict(rows), human, as_json=as_json)


def _load(tee: Tee, file: Path, certificates: list[Path], event_log: Path | None) -> Any:
    log = None if event_log is None else read_input(event_log, "the log", limit=_MOST_BYTES)
    return evidence_files.load(
        tee,
        read_input(file, "the evidence", limit=_MOST_BYTES),
        [read_input(each, "the certificate", limit=2**20) for each in certificates],
        log,
    )


def _judged(
    load: Callable[[], Any],
    tee: Tee,
    table: VerifierTable,
    bound: ReportData | None,
    init_data: bytes | None,
) -> tuple[Any, tuple[Finding, ...], str | None]:
    """Return claims, what does not hold, and what to do about it."""
    try:
        evidence = load()
        claims = common.run_async(_verify(table.find(tee), evidence, bound, init_data))
    except EvidenceError as error:
        found = error.findings or (Finding(f"{tee}.evidence", error.message),)
        return None, found, error.hint
    except FormatError as error:
        return None, (Finding(f"{tee}.evidence", error.message),), error.hint
    return claims[0] if len(claims) == 1 else claims, (), None


async def _verify(
    verifier: Verifier, evidence: Any, bound: ReportData | None, init_data: bytes | None
) -> list[JsonObject]:
    if bound is None:
        bound = await _carried(verifier, evidence)
    authentic = await verifier.authenticate(evidence, Expected(bound, chosen=True))
    parts = await authentic.parts(init_data, verifier.category)
    return [part.claims for part in parts]


async def _carried(verifier: Verifier, evidence: Any) -> ReportData:
    """Return what evidence is bound to, as its verifier finds it when it looks for another."""
    other = ReportData(secrets.token_bytes(_PROBE_BYTES))
    try:
        await verifier.authenticate(evidence, Expected(other, chosen=True))
    except EvidenceError as error:
        for finding in error.findings:
            if finding.check.endswith(".report_data") and finding.actual:
                return ReportData(bytes.fromhex(finding.actual))
        raise
    return other


def _parsed(tee: Tee, evidence: Any) -> Any:
    """Return the layouts in evidence, or what it says itself where there are none."""
    if tee is Tee.SNP:
        shape = snp_json.parse(evidence)
        return {"report": snp.Report.parse(shape.report()), **shape.certificates()}
    if tee in {Tee.TDX, Tee.SGX} and isinstance(evidence, dict):
        text = evidence.get("quote")
        if not isinstance(text, str):
            raise FormatError("the evidence has no quote")
        return quote.Quote.parse(wire_json.b64decode(text, "the quote"))
    if tee in {Tee.AZ_SNP_VTPM, Tee.AZ_TDX_VTPM} and isinstance(evidence, dict):
        azure = AzureEvidence.parse(tee, evidence)
        report = azure.report
        hardware: Any = report.hardware
        if report.kind == hcl.SNP:
            hardware = snp.Report.parse(report.hardware)
        return {
            "quote": azure.quote,
            "pcrs": azure.pcrs,
            "hcl": {"variable": report.variable.decode("utf-8", "replace")},
            "report": hardware,
        }
    if tee is Tee.TPM and isinstance(evidence, dict):
        message = evidence.get("tpm_quote", {})
        text = message.get("message") if isinstance(message, dict) else None
        if isinstance(text, str):
            return {**evidence, "quote": tpm.Quote.parse(wire_json.b64decode(text, "message"))}
    return evidence


def _print(claims: Any, findings: tuple[Finding, ...], hint: str | None) -> None:
    if claims is not None:
        print(json.dumps(claims, indent=2))  # noqa: T201 - the result
    for finding in findings:
        print(_line(f"{finding.check}: {finding.problem}"), file=sys.stderr)  # noqa: T201
        for name in ("actual", "expected"):
            if value := getattr(finding, name):
                print(_line(f"  {name}: {value}"), file=sys.stderr)  # noqa: T201
    if hint:
        print(visible(f"hint: {hint}"), file=sys.stderr)  # noqa: T201


def _line(text: str) -> str:
    """Return a stranger's text as one line: more would pass for fields and findings of ours."""
    return visible(text).replace("\n", "␊")


def _hex(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{option} is no hex") from error


def _time(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("--at is no time", hint="2026-08-01T12:00:00Z") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
