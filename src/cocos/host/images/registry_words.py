# SPDX-License-Identifier: Apache-2.0
"""A registry's reason for a refusal whose text Skopeo keeps to itself."""

import json
import urllib.error
import urllib.request
from typing import Any

from cocos.host.images.registry_errors import plain

_SECONDS = 10.0
_BYTES = 2**16
_TOO_MANY = 429


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: a registry must not choose whose words are shown."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask_again(url: str) -> str:
    """Ask once more, without credentials; return why there may be no more requests, or nothing.

    Blocks, for seconds at most.
    """
    if not url.startswith(("http://", "https://")):
        return ""  # urllib would open files, too
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(url, timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            data = error.read(_BYTES) if error.code == _TOO_MANY else b""
    except (OSError, ValueError):
        return ""
    try:
        said = json.loads(data)["errors"][0]
        return plain(f"{said.get('code', '')}: {said.get('message', '')}")
    except (ValueError, LookupError, TypeError, AttributeError):
        return plain(data.decode("utf-8", "replace"))
