# SPDX-License-Identifier: Apache-2.0
"""The checks of ``cocos-cli doctor``, one function each."""

import asyncio
import contextlib
import datetime as dt
import email.utils
import enum
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from cocos._clock import Clock
from cocos.cli import _common as common
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CocosError,
    ConfigError,
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from cocos.host import process
from cocos.host.containers import sandbox
from cocos.host.images import skopeo
from cocos.host.machines import accelerator, kvm
from cocos.host.policies.workers import PolicyWorkers
from cocos.manager.backends import Image, check_firmware
from cocos.manager.config import ENVIRONMENT, ManagerConfig
from cocos.policy.documents import Kind

T = TypeVar("T")

ANSWER_SECONDS = 3.0
_SHOWN_KEYS = 5
CLOCK_SECONDS = 60  # of difference to the KBS; tokens live for minutes
OLDEST_PYTHON = (3, 11)


class Verdict(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        verdict: How it came out; ``failed`` means that something needed does not work.
        detail: What was found.
        fix: What to do about it, or empty.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    purpose: str
    needed: bool = False
    package: str = ""
    arguments: tuple[str, ...] = ("--version",)


TOOLS = (
    _Tool("runc", "runs algorithms", needed=True),
    _Tool("umoci", "unpacks images", needed=True),
    _Tool("bwrap", "fences in the programs of local VMs", needed=True, package="bubblewrap"),
    _Tool("qemu-system-x86_64", "runs VMs", package="qemu-system-x86"),
    _Tool("swtpm", "gives VMs a TPM"),
    _Tool(
        "swtpm_setup",
        "makes TPMs that a CA has certified",
        package="swtpm-tools",
        arguments=("--print-capabilities",),  # Debian 12's ends with 1 after its version
    ),
    _Tool("buildah", "builds images"),
    _Tool("mmdebstrap", "gets Debian 13's Skopeo and registry"),
    _Tool("jq", "shows manifests in the guide"),
    _Tool("curl", "talks to the KBS in the guide"),
    _Tool("openssl", "makes keys in the guide", arguments=("version",)),
)


async def check_python() -> list[Check]:
    """Python's version."""
    good = sys.version_info[:2] >= OLDEST_PYTHON
    verdict = Verdict.OK if good else Verdict.FAILED
    fix = "" if good else f"use Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer"
    return [Check("python", verdict, platform.python_version(), fix)]


async def check_tools() -> list[Check]:
    """Programs of the system, with their versions."""
    return list(await asyncio.gather(*map(_check_tool, TOOLS)))


async def _check_tool(tool: _Tool) -> Check:
    hint = f"sudo apt-get install {tool.package or tool.name}"
    try:
        path = process.find_tool(tool.name, hint=hint)
        done = await process.run([path, *tool.arguments], timeout=10)
    except CocosError as error:
        verdict = Verdict.FAILED if tool.needed else Verdict.WARNING
        return Check(tool.name, verdict, f"{error.message} ({tool.purpose})", hint)
    first = (done.stdout or done.stderr).decode(errors="replace").strip().partition("\n")[0]
    # What is no sentence is a list of abilities for programs.
    return Check(tool.name, Verdict.OK, str(path) if first.startswith("{") else first[:80])


async def check_skopeo() -> list[Check]:
    """A Skopeo that has been seen to use a key provider, and whether the shell has it, too."""
    found = await _attempt("skopeo", skopeo.find, lambda found: found.argv[-1])
    own = shutil.which("skopeo")
    if found.verdict is Verdict.OK and found.detail != own:
        other = f"the shell's own, {own}, cannot use key providers" if own else "not on PATH"
        detail = f"{found.detail}; {other}"
        found = Check(found.name, Verdict.WARNING, detail, 'eval "$(cocos-cli env)"')
    return [found]


async def check_registry_program() -> list[Check]:
    """A registry that can be started here."""
    found = await _attempt("docker-registry", skopeo.find_registry, lambda argv: argv[-1])
    if found.verdict is Verdict.FAILED:  # any registry will do, also one elsewhere
        found = Check(found.name, Verdict.WARNING, found.detail, found.fix)
    return [found]


async def check_sandbox() -> list[Check]:
    """Whether local VMs can be fenced in, and their containers limited."""

    async def attempt() -> str:
        await sandbox.check()
        return "as root" if os.geteuid() == 0 else "by user namespaces"

    checks = [await _attempt("sandbox", attempt, str)]
    if os.geteuid() == 0:
        return [*checks, Check("containers", Verdict.OK, "as root, limited by control groups")]
    return [
        *checks,
        Check(
            "containers",
            Verdict.WARNING,
            "not root: memory and processes of an algorithm cannot be limited by control groups",
            "run the manager as root",
        ),
    ]


async def check_vms() -> list[Check]:
    """Whether VMs boot, of which image, and by what, as a manager with our environment has it."""
    try:
        config = common.load_settings(ManagerConfig, environment=ENVIRONMENT, flags={})
    except ConfigError as error:
        return [Check("vms", Verdict.FAILED, f"the manager's settings: {error.message}")]

    async def find_image() -> str:
        return f"in {Image.find(config).folder}"

    image = await _attempt("image", find_image, str)
    if image.verdict is Verdict.FAILED:  # the backend local needs none
        image = Check(image.name, Verdict.WARNING, image.detail, image.fix)
    return [image, await _check_accelerator(config)]


async def _check_accelerator(config: ManagerConfig) -> Check:
    try:
        check_firmware(config)
        found = await accelerator.choose(config.accelerator, config.firmware)
    except CocosError as error:
        return Check("vms", Verdict.WARNING, error.message, error.hint or "")
    if found.name == "kvm":
        return Check("vms", Verdict.OK, f"run by KVM: {found.reason}")
    fix = kvm.HINT if config.accelerator == "auto" else ""
    return Check("vms", Verdict.WARNING, f"emulated, slowly: {found.reason}", fix)


async def check_kbs(url: str, clock: Clock) -> list[Check]:
    """Whether a KBS answers, and whether our clock agrees with its."""
    try:
        answer = await get(f"{url.rstrip('/')}/kbs/v0/auth", verify=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = "is it running, and is this its address? An untrusted certificate fails, too"
        return [Check("KBS", Verdict.FAILED, f"{url} does not answer: {error}", fix)]
    if answer.status_code not in {200, 405}:
        detail = f"{url} answered {answer.status_code} to GET /kbs/v0/auth"
        return [Check("KBS", Verdict.FAILED, detail, "is this the base URL of a KBS?")]
    return [Check("KBS", Verdict.OK, f"{url} answers"), _check_clock(answer, clock())]


async def check_keys(url: str, proof: Credentials, clock: Clock) -> list[Check]:
    """Whether a KBS has keys of images that whatever is computed gets; administrators may know."""
    name = "keys at the KBS"
    try:
        async with KbsAdmin(url, token=proof.bearer(clock)) as admin:
            found = await admin.unbound_keys()
    except CocosError as error:
        return [_unasked(name, error, proof)]
    if not found:
        return [Check(name, Verdict.OK, "none is left to a policy that lets every computation")]
    shown = ", ".join(found[:_SHOWN_KEYS]) + (", …" if len(found) > _SHOWN_KEYS else "")
    detail = f"{len(found)} for whatever runs on a machine that is trusted: {shown}"
    fix = "kbs-client config set-resource-policy --id resource/KEY --for MANIFEST"
    return [Check(name, Verdict.WARNING, detail, fix)]


async def check_policies(url: str, proof: Credentials, clock: Clock) -> list[Check]:
    """Whether a KBS's policies mean what they say, tried here; administrators may read them."""
    name, found = "policies of the KBS", []
    try:
        async with KbsAdmin(url, token=proof.bearer(clock)) as admin:
            texts = [
                (policy_id, await admin.get_resource_policy(policy_id), Kind.RESOURCE)
                for policy_id in await admin.list_resource_policies()
            ]
            with contextlib.suppress(UnsupportedError):  # another server appraises
                texts += [
                    (policy_id, await admin.get_attestation_policy(policy_id), Kind.ATTESTATION)
                    for policy_id in await admin.list_attestation_policies()
                ]
        for policy_id, text, kind in texts:
            try:
                warnings = await PolicyWorkers().check(text, kind)
            except FormatError as error:
                detail = f"{policy_id} denies everything: {error.message}"
                found.append(Check(name, Verdict.WARNING, detail, error.hint or ""))
                continue
            found += [Check(name, Verdict.WARNING, f"{policy_id}: {each}") for each in warnings]
    except CocosError as error:
        return [_unasked(name, error, proof)]
    return found or [Check(name, Verdict.OK, f"nothing wrong is found in {len(texts)}")]


def _unasked(name: str, error: CocosError, proof: Credentials) -> Check:
    fix = error.hint or ""
    if isinstance(error, AuthenticationError | AccessDeniedError | NotFoundError):
        fix = proof.advice
        if not proof:
            fix = f"a KBS tells its administrators only: {fix}"
    return Check(name, Verdict.SKIPPED, f"not checked: {error.message}", fix)


def _check_clock(answer: httpx.Response, now: dt.datetime) -> Check:
    try:
        theirs = email.utils.parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return Check("clock", Verdict.SKIPPED, "the KBS does not tell its time")
    difference = abs((now - theirs).total_seconds())
    if difference > CLOCK_SECONDS:
        detail = f"{difference:.0f} s away from the KBS's; tokens will look expired or unborn"
        return Check("clock", Verdict.FAILED, detail, "sudo timedatectl set-ntp true")
    return Check("clock", Verdict.OK, f"within {CLOCK_SECONDS} s of the KBS's")


async def check_registry(address: str) -> list[Check]:
    """Whether a registry answers; by plain http only on loopback."""
    host = address.rpartition(":")[0] or address
    scheme = "http" if host in skopeo.LOOPBACK else "https"
    url = address if "://" in address else f"{scheme}://{address}"
    try:
        answer = await get(f"{url.rstrip('/')}/v2/", verify=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = "is it running, and is this its address? Only loopback registries may speak http"
        return [Check("registry", Verdict.FAILED, f"{url} does not answer: {error}", fix)]
    if answer.status_code in {200, 401}:
        return [Check("registry", Verdict.OK, f"{url} answers")]
    detail = f"{url} answered {answer.status_code} to GET /v2/"
    return [Check("registry", Verdict.FAILED, detail, "is this a registry?")]


async def get(url: str, *, verify: bool) -> httpx.Response:
    """Ask a server, past all proxies."""
    async with httpx.AsyncClient(verify=verify, trust_env=False) as http:
        return await http.get(url, timeout=ANSWER_SECONDS)


async def _attempt(
    name: str, attempt: Callable[[], Awaitable[T]], say: Callable[[T], str]
) -> Check:
    try:
        found = await attempt()
    except CocosError as error:
        return Check(name, Verdict.FAILED, error.message, error.hint or "")
    return Check(name, Verdict.OK, say(found))
