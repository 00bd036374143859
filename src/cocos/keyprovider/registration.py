# SPDX-License-Identifier: Apache-2.0
"""Keys registered at a KBS by its administrator, each under a policy of its own.

A key is registered after the policy that says who gets it, so that whatever breaks off in
between leaves nothing to be got. A guest, which is nobody's administrator, does without
this module.
"""

from dataclasses import dataclass
from pathlib import Path

from cocos._clock import Clock
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    NotFoundError,
    StateError,
    UnsupportedError,
)
from cocos.policy import owners
from cocos.wire.kbs.protocol import ResourcePath


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
    try:
        await admin.set_resource(key, data, overwrite=not new)
    except StateError as error:
        raise _taken(key) from error


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
        # Their key may be without a policy: ours could let it out.
        if new and await _exists(admin, key):
            raise _taken(key)
        await admin.set_resource_policy(binding.policy, policy_id, overwrite=present is not None)
    except (AccessDeniedError, AuthenticationError) as error:
        raise type(error)(
            f"{error.message}; the key {key.uri} was not registered",
            hint=f"may this administrator set the policy {policy_id}? Who may can be given the "
            "text: cocos-cli policy prints it" + (f"; {error.hint}" if error.hint else ""),
        ) from error
    except (NotFoundError, UnsupportedError) as error:
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


async def _exists(admin: KbsAdmin, key: ResourcePath) -> bool:
    return str(key) in await admin.list_resources(str(key))


def _taken(key: ResourcePath) -> StateError:
    return StateError(
        f"the KBS already has a key {key.uri}, and it is another one",
        hint="choose another name, or bring that key: cocos-cli encrypt --key-file",
    )


class Registrar:
    """Stores new keys at a KBS with the administrator's key.

    Args:
        url: The KBS.
        credentials: Of its administrator; none for a KBS that was started without
            authentication.
        clock: For the token.
        binding: The policy of every key that it stores; None: the KBS's more general ones.
        ca_file: The only CA to trust.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials,
        clock: Clock,
        binding: Binding | None,
        ca_file: Path | None = None,
    ) -> None:
        credentials.check(url)
        self.url = url
        self._binding = binding
        self._credentials = credentials
        self._clock = clock
        self._ca_file = ca_file

    async def register(self, key: ResourcePath, data: bytes, *, new: bool) -> None:
        """Store a key, as :func:`register` does."""
        async with KbsAdmin(
            self.url,
            token=self._credentials.bearer(self._clock),
            advice=self._credentials.advice,
            ca_file=self._ca_file,
        ) as admin:
            await register(admin, key, data, new=new, binding=self._binding)
