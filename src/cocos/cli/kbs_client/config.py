# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: what a KBS knows. Here its resources; policies and values beside."""

from pathlib import Path
from typing import Annotated

import typer

from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli.kbs_client import config_policies, config_tpms, config_values
from cocos.cli.kbs_client.admin import (
    Connection,
    done,
    run_admin,
    show_names,
)
from cocos.clients.kbs import KbsAdmin
from cocos.host.files import read_input
from cocos.wire.kbs.protocol import ResourcePath

app = common.make_app("Change what the KBS knows: resources, policies, reference values.")
app.add_typer(config_policies.app)
app.add_typer(config_values.app)
app.add_typer(config_tpms.app)

PathOption = Annotated[
    str, typer.Option("--resource", "--path", help="The resource, as repository/type/tag.")
]


@app.callback()
def admin_options(
    context: typer.Context,
    *,
    auth_private_key: admin.AuthPrivateKey = None,
    admin_token_file: admin.AdminTokenFile = None,
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
) -> None:
    """Change what the KBS knows: resources, policies, reference values."""
    connection: Connection = context.obj
    context.obj = connection.as_admin(
        admin.credentials(auth_private_key, admin_token_file, role, issuer, audience)
    )


@app.command("set-resource")
def set_resource(
    context: typer.Context,
    *,
    path: PathOption,
    resource_file: Annotated[Path, typer.Option("--resource-file", help="Its content.")],
    as_json: common.JsonFlag = False,
) -> None:
    """Store a resource, over an old one if there is one."""
    name = ResourcePath.parse(path)
    data = read_input(resource_file, "the resource")
    run_admin(context.obj, lambda kbs: kbs.set_resource(name, data))
    done(f"stored {name}, {len(data)} bytes", {"path": path, "bytes": len(data)}, as_json=as_json)


@app.command("delete-resource")
def delete_resource(
    context: typer.Context, *, path: PathOption, as_json: common.JsonFlag = False
) -> None:
    """Delete a resource."""
    name = ResourcePath.parse(path)
    run_admin(context.obj, lambda kbs: kbs.delete_resource(name))
    done(f"deleted {name}", {"path": path}, as_json=as_json)


@app.command("list-resources")
def list_resources(
    context: typer.Context,
    *,
    prefix: Annotated[
        str, typer.Option("--prefix", help="Only names that begin so: default/key/.")
    ] = "",
    unbound: Annotated[
        bool,
        typer.Option(
            "--unbound",
            help="Only keys of images of which nobody said who may have them: the global policy "
            "lets every computation.",
        ),
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Print the names of resources, never their content."""

    async def names_of(kbs: KbsAdmin) -> list[str]:
        if not unbound:
            return await kbs.list_resources(prefix)
        return [name for name in await kbs.unbound_keys() if name.startswith(prefix)]

    names = run_admin(context.obj, names_of)
    show_names(names, as_json=as_json)
