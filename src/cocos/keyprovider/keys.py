# SPDX-License-Identifier: Apache-2.0
"""Keys that a KBS keeps: fetched like any resource, registered by its administrator.

A key is registered after the policy that says who gets it, so that whatever breaks off in
between leaves nothing to be got.
"""

from dataclasses import dataclass
from pathlib import Path

from cocos._clock import Clock
from cocos.clients.kbs import KbsAdmin
from cocos.clients.resources import ResourceSource
from cocos.crypto import admin_jwt, kek
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    FormatError,
    NotFoundError,
    StateError,
    UnsupportedError,
)
from cocos.policy import owners
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri


async def fetch(source: ResourceSource, uri: ResourceUri, url: str | None = None) -> bytes:
    """Return the 32 bytes of a key.

    Args:
        source: Who has it.
        uri: The key's resource.
        url: The KBS; the configured one if None.

    Raises:
        FormatError: what there is is no key; the message names the length found.
        CocosError: as :meth:`ResourceSource.get`.
    """
    where = "" if url is None else f" at {url}"
    return kek.parse(await source.get(uri, url), f"the key {uri}{where}")


@dataclass(frozen=True, slots=True)
class Binding:
    """The policy that a key gets, and it alone.

    Attributes:
        policy: Rego, of :func:`cocos.policy.owners.write`.
        replace: Also where the KBS has another policy for it.
    """

    policy: str
    replace: bool = False


async def register(
    admin: KbsAdmin, key: ResourcePath, data: bytes, *, new: bool, binding: Binding | None
) -> None:
    """Store a key; before that, the policy that says who gets it.

    Args:
        admin: Of the KBS.
        key: Its name.
        data: The key.
        new: It was made just now, so that one of that name must be somebody else's.
        binding: Its policy; without one the KBS's more general policies decide.

    Raises:
        StateError: it is new and the KBS has another one of that name, or the KBS has another
            policy for it, which may not be replaced; nothing was changed.
        UnsupportedError: the KBS has no policies of single keys; nothing was changed.
        CocosError: as of :class:`KbsAdmin`; the key was not stored.
    """
    if binding is not None:
        await _bind(admin, key, binding, new=new)
    await admin.set_resource(key, data, overwrite=not new)


async def _bind(admin: KbsAdmin, key: ResourcePath, binding: Binding, *, new: bool) -> None:
    policy_id = f"resource/{key}"
    try:
        present = await _present(admin, policy_id)
        if present is not None and owners.same(present, binding.policy):
            return
        if present is not None and not binding.replace:
            raise StateError(
                f"the KBS has another policy for {key.uri}; nothing was changed",
                hint=f"kbs-client config get-resource-policy --id {policy_id} shows it, "
                "--replace-policy replaces it",
            )
        if present is not None and new and str(key) in await admin.list_resources(str(key)):
            raise StateError(f"there is already a resource {key}; nothing was changed")
        await admin.set_resource_policy(binding.policy, policy_id, overwrite=present is not None)
    except (AccessDeniedError, AuthenticationError) as error:
        raise type(error)(
            f"{error.message}; the key {key.uri} was not registered",
            hint=f"may this administrator set the policy {policy_id}? Who may can be given the "
            "text: cocos-cli policy prints it" + (f"; {error.hint}" if error.hint else ""),
        ) from error
    except NotFoundError as error:
        raise UnsupportedError(
            f"this KBS has no policies of single keys; the key {key.uri} was not registered",
            hint="only a KBS of ours has them; on another, set its one policy first, and store "
            "the key with kbs-client config set-resource",
        ) from error


async def _present(admin: KbsAdmin, policy_id: str) -> str | None:
    try:
        return await admin.get_resource_policy(policy_id)
    except NotFoundError:
        return None


class Registrar:
    """Stores new keys at a KBS with the administrator's key.

    Args:
        url: The KBS.
        private_key: Ed25519 private key of the administrator, PEM; None for a KBS that
            was started without authentication.
        clock: For the token.
        binding: The policy of every key that it stores; None: the KBS's more general ones.
        ca_file: The only CA to trust.
    """

    def __init__(
        self,
        url: str,
        *,
        private_key: bytes | None,
        clock: Clock,
        binding: Binding | None,
        ca_file: Path | None = None,
    ) -> None:
        self.url = url
        self._binding = binding
        self._private_key = private_key
        self._clock = clock
        self._ca_file = ca_file

    async def register(self, key: ResourcePath, data: bytes, *, new: bool) -> None:
        """Store a key, as :func:`register` does."""
        token = None
        if self._private_key is not None:
            token = admin_jwt.mint(self._private_key, now=self._clock())
        async with KbsAdmin(self.url, token=token, ca_file=self._ca_file) as admin:
            await register(admin, key, data, new=new, binding=self._binding)


def resource_path(uri: ResourceUri) -> ResourcePath | None:
    """Return the path of a plain KBS resource, None for a plugin's or an odd one."""
    if uri.plugin != "resource" or uri.query:
        return None
    try:
        return ResourcePath.parse(uri.path)
    except FormatError:
        return None
