# SPDX-License-Identifier: Apache-2.0
"""How the agent reaches registries: with which credentials, believing whom.

Credentials are a resource of the KBS, which this machine gets by its evidence. They are asked
for anew each time, held in a private file while Skopeo runs, and given to the registry alone
that they name, by TLS that nothing of the host's can switch off or vouch for: not its
registries.conf, and not its CA.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cocos.agent.registry_credentials import RegistryCredentials
from cocos.errors import CocosError
from cocos.host.files import write_atomic
from cocos.host.images.skopeo import Skopeo
from cocos.wire import oci
from cocos.wire.kbs.protocol import ResourceUri

if TYPE_CHECKING:
    from cocos.clients.resources import ResourceSource


@dataclass(frozen=True, slots=True)
class KbsCredentials:
    """Where credentials are.

    Attributes:
        uri: The resource.
        resources: The KBS that has it.
    """

    uri: ResourceUri
    resources: "ResourceSource"


@contextlib.asynccontextmanager
async def reached(
    skopeo: Skopeo, credentials: KbsCredentials | None, reference: oci.Reference
) -> AsyncIterator[Skopeo]:
    """Yield a Skopeo that reaches the registry of an image.

    Raises:
        CocosError: as the KBS says, which names the credentials.
        FormatError: they are not of their form.
    """
    if credentials is None or reference.transport != "docker":
        yield skopeo
        return
    what = f"the registries' credentials {credentials.uri}"
    try:
        data = await credentials.resources.get(credentials.uri)
    except CocosError as error:
        error.message = f"{what}: {error.message}"
        raise
    chosen = RegistryCredentials.choose(data, reference, what)
    if chosen is None:
        yield skopeo
        return
    with tempfile.TemporaryDirectory(prefix="cocos-registry-") as name:
        authfile, certificates = Path(name) / "auth.json", Path(name) / "ca.pem"
        await asyncio.to_thread(write_atomic, authfile, chosen.authfile)
        await asyncio.to_thread(write_atomic, certificates, chosen.certificates.encode())
        yield replace(
            skopeo,
            authfile=authfile,
            extra_root_certificates=certificates if chosen.certificates else None,
            verify_tls=True,
        )
