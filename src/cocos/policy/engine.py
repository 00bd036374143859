# SPDX-License-Identifier: Apache-2.0
"""Rego policies, compiled once per set of base documents.

A plain query compiles the policy every time (14 ms for our largest); a compiled bundle
answers in well below a millisecond. rego-cpp fixes the base documents, Rego's ``data``,
when it compiles, so that bundles are kept by them.

Documents reach the engine as JSON text only: its own converter of Python values does not
escape strings and cuts integers to 64 bits.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from regopy import Bundle, Interpreter, RegoError
from regopy.rego_shared import LogLevel

from cocos.errors import ConfigError, FormatError
from cocos.policy import _source

MAX_BUNDLES: Final = 64
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 16_384
"""In an input: the engine's time grows with the square of their number (a second for these)."""

_VERDICTS = ("data.policy.allow", "data.policy.trust_claims")


class Policy:
    """A policy that parses. Evaluation is pure: it sees its documents and nothing else."""

    def __init__(self, text: str) -> None:
        _source.check(text)
        self.text = text
        self._modules = {"policy.rego": text}
        if not _source.defines_helper(text):
            self._modules["helper.rego"] = _source.HELPER
        self._bundles: OrderedDict[tuple[str, str], tuple[Interpreter, Bundle]] = OrderedDict()
        self._lock = threading.Lock()  # the engine releases the GIL and has none of its own

    @classmethod
    def compile(cls, text: str) -> "Policy":
        """Parse a policy and try it on empty documents.

        Args:
            text: Rego of package ``policy``. ``query_reference_value(id)`` is available: the
                member ``id`` of ``data.reference_values``, or null.

        Raises:
            FormatError: it does not parse, calls a function that does not exist, or uses
                something that a policy must not use; names the line where it can.
        """
        policy = cls(text)
        try:
            for verdict in _VERDICTS:
                policy.query(verdict, {}, {})
        except ConfigError as error:
            raise FormatError(
                f"the policy does not compile: {error.message}",
            ) from error
        return policy

    def query(self, query: str, document: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
        """Evaluate a rule.

        Args:
            query: The rule, such as ``data.policy.allow``.
            document: Rego's ``input``.
            data: Base documents, Rego's ``data``; ``reference_values`` is empty unless given.

        Returns:
            The rule's value as JSON; None when it is undefined.

        Raises:
            ConfigError: the policy fails on these documents, for instance because two rules
                give different values.
            FormatError: a document that is no JSON, nested too deep, or an input of more than
                :data:`MAX_VALUES`.
        """
        base = _document({"reference_values": {}, **data}, "data", plain_numbers=True)
        if _count(document) > MAX_VALUES:
            raise FormatError(f"the policy's input has more than {MAX_VALUES} values")
        term = _document(document, "input")
        with self._lock:
            try:
                interpreter, bundle = self._bundle(query, base)
                interpreter.set_input_term(term)
                output = interpreter.query_bundle_entrypoint(bundle, _entrypoint(query))
                if not output.ok():
                    raise ConfigError(_source.describe(str(output), self.text))
            except (RegoError, ValueError, RecursionError) as error:
                # ValueError: what the engine returned is an error in a JSON-like coat.
                raise ConfigError(_source.describe(str(error), self.text)) from error
        expressions = output.results[0].expressions if output.results else []
        return expressions[0] if expressions else None

    def _bundle(self, query: str, data: str) -> tuple[Interpreter, Bundle]:
        found = self._bundles.get((query, data))
        if found is not None:
            self._bundles.move_to_end((query, data))
            return found
        interpreter = Interpreter()
        interpreter.log_level = LogLevel.NONE
        interpreter.add_data_json(data)
        for name, text in self._modules.items():
            interpreter.add_module(name, text)
        made = interpreter, interpreter.build(None, [_entrypoint(query)])
        self._bundles[query, data] = made
        if len(self._bundles) > MAX_BUNDLES:
            self._bundles.popitem(last=False)
        return made


def check_data(value: Mapping[str, Any]) -> None:
    """Check that a value can be among a policy's base documents.

    Raises:
        FormatError: no JSON, nested too deep, or a number in exponent notation.
    """
    _document(value, "data", plain_numbers=True)


def _entrypoint(query: str) -> str:
    return query.removeprefix("data.").replace(".", "/")


def _document(value: Mapping[str, Any], what: str, *, plain_numbers: bool = False) -> str:
    try:
        _check(value, MAX_DEPTH, plain_numbers=plain_numbers)
        return json.dumps(value, allow_nan=False, sort_keys=plain_numbers)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the policy's {what} is not plain JSON: {error}") from error


def _count(document: object) -> int:
    """Count values, up to little more than the limit."""
    count, pending = 0, [document]
    while pending and count <= MAX_VALUES:
        value = pending.pop()
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple):
            pending += value
        count += 1
    return count


def _check(value: object, room: int, *, plain_numbers: bool) -> None:
    # The engine overflows its stack on deep documents, and crashes on base documents with
    # a number in exponent notation.
    if room == 0:
        raise ValueError("nested too deep")
    if isinstance(value, Mapping):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError("a member's name is not text")
            _check(member, room - 1, plain_numbers=plain_numbers)
    elif isinstance(value, list | tuple):
        for member in value:
            _check(member, room - 1, plain_numbers=plain_numbers)
    elif plain_numbers and isinstance(value, float) and "e" in repr(value):
        raise ValueError(f"the number {value} is too large or too small")
