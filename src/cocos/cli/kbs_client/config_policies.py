# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: the policies of a KBS."""

import enum
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from cocos.cli import _common as common
from cocos.cli import _terms as terms
from cocos.cli.kbs_client.admin import done, read_text, run_admin, show_names
from cocos.clients.kbs import KbsAdmin
from cocos.errors import UsageError
from cocos.host.policies.workers import PolicyWorkers
from cocos.policy import defaults
from cocos.policy.documents import Kind

GLOBAL: Final = "resource-policy"

app = common.make_app("Policies.")

PolicyFile = Annotated[
    Path | None, typer.Option("--policy-file", help="A Rego policy of your own.")
]
ResourcePolicyId = Annotated[
    str,
    typer.Option(
        "--id",
        help="What it is for: the first segments of its resources' routes, such as "
        "resource/default/key. By default the policy of everything else.",
    ),
]
AttestationPolicyId = Annotated[
    str, typer.Option("--id", help="What it appraises: default_cpu, default_gpu.")
]


class PolicyType(enum.StrEnum):
    """Languages of policies."""

    REGO = "rego"


@app.command("set-resource-policy")
def set_resource_policy(
    context: typer.Context,
    *,
    policy_file: PolicyFile = None,
    allow_all: Annotated[
        bool, typer.Option("--allow-all", help="Insecure: everything to everybody who attests.")
    ] = False,
    deny_all: Annotated[bool, typer.Option("--deny-all", help="Nothing to anybody.")] = False,
    affirming: Annotated[
        bool,
        typer.Option("--affirming", help="Everything to attesters all of whose parts are good."),
    ] = False,
    default: Annotated[
        bool, typer.Option("--default", help="What a new KBS does: --affirming.")
    ] = False,
    for_manifest: terms.For = None,
    for_image: terms.ForImage = None,
    for_algorithm: terms.ForAlgorithm = None,
    any_computation: terms.AnyComputation = False,
    policy_id: ResourcePolicyId = GLOBAL,
    as_json: common.JsonFlag = False,
) -> None:
    """Set the policy that decides who gets which resource."""
    word = terms.Word.of(for_manifest, for_image, for_algorithm, any_computation)
    choices: dict[str, tuple[bool, Callable[[], str]]] = {
        "allow-all": (allow_all, lambda: defaults.ALLOW_ALL),
        "deny-all": (deny_all, lambda: defaults.DENY_ALL),
        "affirming": (affirming, lambda: defaults.text(defaults.RESOURCE)),
        "default": (default, lambda: defaults.text(defaults.RESOURCE)),
        "file": (policy_file is not None, lambda: read_text(Path(policy_file or ""), "the policy")),
        word.options(): (
            bool(word),
            lambda: word.policy(f"kbs-client config set-resource-policy --id {policy_id}"),
        ),
    }
    chosen = [name for name, (wanted, _) in choices.items() if wanted]
    if len(chosen) != 1:
        raise UsageError(
            "choose one policy",
            hint=f"--policy-file, --allow-all, --deny-all, --affirming, --default, {terms.OPTIONS}",
        )
    if allow_all:
        common.stderr.print(
            "warning: this releases every resource to whoever attests, with whatever verdict",
            style="yellow",
        )
    text = choices[chosen[0]][1]()
    if word:
        terms.note(word)
    where = None if policy_id == GLOBAL else policy_id
    warnings = _doubts(context, lambda admin: admin.set_resource_policy(text, where))
    done(
        f"set the resource policy: {chosen[0]}" + (f" for {where}" if where else ""),
        {"policy": chosen[0], "id": policy_id, "warnings": warnings},
        as_json=as_json,
    )


@app.command("check-policy")
def check_policy(
    *,
    policy_file: Annotated[Path, typer.Option("--policy-file", help="A Rego policy.")],
    kind: Annotated[
        Kind, typer.Option("--kind", help="What it is for: resources, or evidence.")
    ] = Kind.RESOURCE,
    as_json: common.JsonFlag = False,
) -> None:
    """Say what a KBS would say of a policy, without setting it or asking one."""
    text = read_text(policy_file, "the policy")
    warnings = common.run_async(PolicyWorkers().check(text, kind))
    _warn(warnings)
    said = f"{len(warnings)} warnings" if warnings else "nothing wrong is found"
    done(f"{policy_file}: {said}", {"warnings": warnings}, as_json=as_json)


@app.command("get-resource-policy")
def get_resource_policy(
    context: typer.Context,
    *,
    policy_id: ResourcePolicyId = GLOBAL,
    as_json: common.JsonFlag = False,
) -> None:
    """Print a resource policy, as stored or the default that holds."""
    text = run_admin(context.obj, lambda admin: admin.get_resource_policy(policy_id))
    _show_policy(policy_id, text, as_json=as_json)


@app.command("list-resource-policies")
def list_resource_policies(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the ids of resource policies."""
    ids = run_admin(context.obj, lambda admin: admin.list_resource_policies())
    show_names(ids, as_json=as_json)


@app.command("delete-resource-policy")
def delete_resource_policy(
    context: typer.Context,
    *,
    policy_id: ResourcePolicyId = GLOBAL,
    as_json: common.JsonFlag = False,
) -> None:
    """Delete a stored resource policy: the more general one, or the default, holds again.

    That may give its resources to more machines; --deny-all gives them to none.
    """
    warnings = _doubts(context, lambda admin: admin.delete_resource_policy(policy_id))
    done(
        f"deleted the resource policy {policy_id}",
        {"id": policy_id, "warnings": warnings},
        as_json=as_json,
    )


@app.command("set-attestation-policy")
def set_attestation_policy(
    context: typer.Context,
    *,
    policy_file: Annotated[Path, typer.Option("--policy-file", help="A Rego policy.")],
    policy_type: Annotated[  # noqa: ARG001 - Trustee's client has it; there is one language
        PolicyType, typer.Option("--type", help="Its language.")
    ] = PolicyType.REGO,
    policy_id: AttestationPolicyId = "default_cpu",
    as_json: common.JsonFlag = False,
) -> None:
    """Set a policy that appraises evidence."""
    text = read_text(policy_file, "the policy")
    if not policy_id.startswith("default_"):
        common.stderr.print(
            f"warning: a KBS appraises by default_cpu, default_gpu and the like; {policy_id} is "
            "stored, but decides nothing",
            style="yellow",
            markup=False,
        )
    warnings = _doubts(context, lambda admin: admin.set_attestation_policy(policy_id, text))
    done(
        f"set the attestation policy {policy_id}",
        {"id": policy_id, "warnings": warnings},
        as_json=as_json,
    )


@app.command("get-attestation-policy")
def get_attestation_policy(
    context: typer.Context,
    *,
    policy_id: AttestationPolicyId = "default_cpu",
    as_json: common.JsonFlag = False,
) -> None:
    """Print a policy that appraises evidence, as stored or the default that holds."""
    text = run_admin(context.obj, lambda admin: admin.get_attestation_policy(policy_id))
    _show_policy(policy_id, text, as_json=as_json)


@app.command("list-attestation-policies")
def list_attestation_policies(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the ids of attestation policies, stored and default."""
    ids = run_admin(context.obj, lambda admin: admin.list_attestation_policies())
    show_names(ids, as_json=as_json)


@app.command("delete-attestation-policy")
def delete_attestation_policy(
    context: typer.Context,
    *,
    policy_id: Annotated[str, typer.Option("--id", help="Which one.")],
    as_json: common.JsonFlag = False,
) -> None:
    """Delete a stored attestation policy: a default of that id holds again."""
    run_admin(context.obj, lambda admin: admin.delete_attestation_policy(policy_id))
    done(f"deleted the attestation policy {policy_id}", {"id": policy_id}, as_json=as_json)


def _doubts(
    context: typer.Context, work: Callable[[KbsAdmin], Awaitable[tuple[str, ...]]]
) -> tuple[str, ...]:
    """Set or delete a policy; say, and return, what the KBS doubts of it."""
    warnings: tuple[str, ...] = run_admin(context.obj, work)
    _warn(warnings)
    return warnings


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        common.stderr.print(f"warning: {warning}", style="yellow", markup=False)


def _show_policy(policy_id: str, text: str, *, as_json: bool) -> None:
    common.emit(
        {"id": policy_id, "policy": text},
        lambda: common.stdout.print(text, end=""),
        as_json=as_json,
    )
