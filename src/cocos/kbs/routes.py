# SPDX-License-Identifier: Apache-2.0
"""Routes of the protocol, as Trustee's clients reach them."""

from starlette.routing import Match, Route
from starlette.types import Scope


class SlashedRoute(Route):
    """A route that a slash at the end leads to as well.

    Who looks at the path of the request sees it without: a rule on a path holds for both.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as :class:`Route` does."""
        if scope["path"] != f"{self.path}/":
            return super().matches(scope)
        match, child = super().matches({**scope, "path": self.path})
        return match, {**child, "path": self.path}
