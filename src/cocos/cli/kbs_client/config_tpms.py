# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: which TPMs of vendors count. They are one reference value."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cocos.cli import _common as common
from cocos.cli.kbs_client.admin import done, run_admin, show_names
from cocos.clients.kbs import KbsAdmin
from cocos.clients.reference_values import change as change_value
from cocos.errors import NotFoundError
from cocos.evidence.endorsement import TRUSTED_EK, parse_fingerprint, parse_list
from cocos.host.files import read_input

_LIMIT = 2**20

app = common.make_app("TPMs of vendors.")


@app.command("set-tpm-eks")
def set_tpm_eks(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Fingerprints of endorsement keys, one a line; # comments.")
    ],
    *,
    add: Annotated[bool, typer.Option("--add", help="Allow those of before as well.")] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Allow the TPMs of vendors that a file names, instead of those of before.

    A fingerprint is the SHA-256 of the endorsement key in DER; kbs-client explain shows that
    of a TPM that was refused. Those of kbs --tpm-ek-allow stay allowed in any case.
    """
    wanted = list(parse_list(read_input(file, "the fingerprints", limit=_LIMIT), str(file)))

    async def store(admin: KbsAdmin) -> list[str]:
        def together(known: Any) -> list[str]:
            before = _texts(known) if add else []
            return [*before, *(each for each in wanted if each not in before)]

        whole: list[str] = await change_value(admin, TRUSTED_EK, together)
        return whole

    whole: list[str] = run_admin(context.obj, store)
    done(f"allowed: {len(whole)} TPMs", {"allowed": whole}, as_json=as_json)


@app.command("list-tpm-eks")
def list_tpm_eks(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the fingerprints of the allowed endorsement keys, those of the KBS's files apart."""
    show_names(run_admin(context.obj, _listed), as_json=as_json)


@app.command("delete-tpm-ek")
def delete_tpm_ek(
    context: typer.Context,
    fingerprint: Annotated[str, typer.Argument(help="Of its endorsement key.")],
    *,
    as_json: common.JsonFlag = False,
) -> None:
    """Allow a TPM no longer; from its next attestation on it gets nothing."""
    gone = parse_fingerprint(fingerprint)

    def without(known: Any) -> list[str]:
        before = _texts(known)
        if gone not in before:
            raise NotFoundError(
                f"the KBS has no endorsement key {gone} on its list",
                hint="kbs-client config list-tpm-eks; those of kbs --tpm-ek-allow are in its file",
            )
        return [each for each in before if each != gone]

    async def strike(admin: KbsAdmin) -> None:
        await change_value(admin, TRUSTED_EK, without)

    run_admin(context.obj, strike)
    done(f"struck off {gone}", {"fingerprint": gone}, as_json=as_json)


async def _listed(admin: KbsAdmin) -> list[str]:
    try:
        return _texts(await admin.get_reference_value(TRUSTED_EK))
    except NotFoundError:
        return []


def _texts(known: Any) -> list[str]:
    # Somebody may have registered what is no list of texts: it allows nobody.
    return [each for each in known if isinstance(each, str)] if isinstance(known, list) else []
