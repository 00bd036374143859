# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli policy``: an owner's word as Rego."""

from cocos.cli import _common as common
from cocos.cli import _terms as terms
from cocos.errors import UsageError


def policy(
    *,
    for_manifest: terms.For = None,
    for_image: terms.ForImage = None,
    for_algorithm: terms.ForAlgorithm = None,
    any_computation: terms.AnyComputation = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Print a resource policy that says who may get a key; encrypt sets such a one itself.

    For keys that a KBS has already: kbs-client config set-resource-policy takes the same
    options, or this text by --policy-file.
    """
    word = terms.Word.of(for_manifest, for_image, for_algorithm, any_computation)
    if not word:
        raise UsageError("say who may get the key", hint=terms.OPTIONS)
    text = word.policy()
    terms.note(word)
    common.emit({"policy": text}, lambda: print(text, end=""), as_json=as_json)  # noqa: T201
