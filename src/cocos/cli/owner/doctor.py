# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli doctor``: what of this machine works, and how to mend the rest."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cocos._clock import system_clock
from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli.owner import doctor_checks as checks
from cocos.cli.owner import doctor_ports as ports
from cocos.cli.owner.doctor_checks import Check, Verdict
from cocos.clients.admin_credentials import Credentials

_MARKS = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARNING: ("!", "yellow"),
    Verdict.FAILED: ("✗", "red"),
    Verdict.SKIPPED: ("-", "dim"),
}

AdminTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        envvar=admin.ENVIRONMENT["admin_token_file"],
        help="A token of kbs-client admin-token, or of an identity provider; here none is "
        "looked for.",
    ),
]


def doctor(
    *,
    kbs: Annotated[
        str, typer.Option(metavar="URL", help="Also check this KBS, and our clock against its.")
    ] = "",
    auth_private_key: admin.AuthPrivateKey = None,
    admin_token_file: AdminTokenFile = None,
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
    registry: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Also check this registry.")
    ] = "",
    as_json: common.JsonFlag = False,
) -> None:
    """Check tools, Skopeo, ports, sandboxes, VMs, KBS and its keys, registry and clock.

    With an administrator's key or token the KBS's policies are checked, too, and who may get
    keys. Each finding comes with its fix. The exit code is 1 if something needed does not work.
    """
    # Who looks at some KBS has not said that it is the one whose token lies about here.
    proof = admin.credentials(
        auth_private_key, admin_token_file, role, issuer, audience, look=False
    )
    found = common.run_async(examine(kbs, registry, proof))
    failed = [check for check in found if check.verdict is Verdict.FAILED]
    common.emit([asdict(check) for check in found], lambda: _show(found), as_json=as_json)
    if failed:
        raise typer.Exit(1)


async def examine(kbs: str, registry: str, proof: Credentials) -> list[Check]:
    """Run all checks at the same time; their findings in the order of the list."""
    jobs: list[Callable[[], Awaitable[list[Check]]]] = [
        checks.check_python,
        checks.check_tools,
        checks.check_skopeo,
        checks.check_registry_program,
        checks.check_sandbox,
        checks.check_vms,
        ports.check_ports,
        partial(checks.check_kbs, kbs, system_clock)
        if kbs
        else partial(_skipped, "KBS and clock", "--kbs URL checks them"),
        *([partial(checks.check_keys, kbs, proof, system_clock)] if kbs else []),
        *([partial(checks.check_policies, kbs, proof, system_clock)] if kbs else []),
        partial(checks.check_registry, registry)
        if registry
        else partial(_skipped, "registry", "--registry HOST:PORT checks it"),
    ]
    with common.stderr.status("checking"):
        groups = await asyncio.gather(*(job() for job in jobs))
    return [check for group in groups for check in group]


async def _skipped(name: str, fix: str) -> list[Check]:
    return [Check(name, Verdict.SKIPPED, "not checked", fix)]


def _show(found: list[Check]) -> None:
    width = max(len(check.name) for check in found)
    for check in found:
        mark, style = _MARKS[check.verdict]
        common.stdout.print(
            f"{mark} {check.name:{width}}  {check.detail}", markup=False, style=style
        )
        if check.fix and check.verdict is not Verdict.OK:
            common.stdout.print(f"  {'':{width}}  → {check.fix}", markup=False)
