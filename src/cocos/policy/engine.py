# SPDX-License-Identifier: Apache-2.0
"""Rego policies, understood once and evaluated many times.

The engine is regorus, Trustee's own. An error of a built-in ends the evaluation, whatever
surrounds it: ``not f(x)`` never holds because ``f`` fails.

It has no limits of its own and is native code: servers run it in worker processes
(:mod:`cocos.host.policies.workers`), which have.
"""

import json
import re
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Protocol

from regorus import Engine

from cocos.errors import ConfigError, Finding, FormatError, did_you_mean
from cocos.policy import _safety, _source, builtins
from cocos.policy._syntax import Rule, Syntax
from cocos.policy.documents import NOTHING, BaseDocuments, Kind, check_data, check_input

# An import that nobody made, or a keyword's typing error: both are variables to the engine.
_UNKNOWN_NAME = re.compile(r"(?:use of undefined variable `|var )([\w.]+)`? is unsafe")

# Of the binding, which gives nobody its class. It is no Exception.
_PANIC: Final = "PanicException"

_NOT_HERE: Final = (
    "is not available to this policy: attestation policies compare with reference values, "
    "and resource policies see what came of it"
)


class PolicyEngine(Protocol):
    """Evaluates policies for servers, within limits."""

    async def evaluate(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate rules of a policy.

        Args:
            text: The policy.
            rules: As of :meth:`Policy.evaluate`.
            document: As there.
            base: As there.
            request: As there.

        Returns:
            Rule → its value as JSON, None when it is undefined.

        Raises:
            ConfigError: the policy does not compile, fails on these documents, or needs too
                much time or memory.
            FormatError: the policy or a document is nothing for the engine.
        """
        ...

    async def explain(
        self,
        text: str,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> tuple[Finding, ...]:
        """Say which statements of rules do not hold; arguments as of :meth:`evaluate`.

        Raises:
            ConfigError: as of :meth:`evaluate`.
            FormatError: as there.
        """
        ...

    async def check(self, text: str, kind: Kind) -> tuple[str, ...]:
        """Try a policy on empty documents, and look for what its author cannot have meant.

        Returns:
            Warnings, with their lines.

        Raises:
            FormatError: it can never allow anything, crashes the engine, or needs too much
                time or memory.
        """
        ...


class Policy:
    """A policy that parses. Evaluation is pure: it sees its documents and nothing else."""

    def __init__(self, text: str) -> None:
        """Read a policy.

        Args:
            text: Rego of package ``policy``, of the functions in
                :data:`cocos.policy.builtins.ALLOWED`.

        Raises:
            FormatError: it does not parse, or calls a function that does not exist or that
                a policy must not call; names the line where it can.
        """
        text = text.removeprefix("\ufeff")  # editors put it there
        _source.check(text)
        self.text = text
        self._base = NOTHING
        self._engine = self._load()
        self._data: tuple[str, Mapping[str, Any] | None] | None = None
        syntax = self.syntax()
        _check_calls(syntax)
        try:
            _safety.check(syntax)
        except RecursionError as error:
            raise FormatError("the policy is nested too deep") from error
        self._asks = _asks_values(syntax)

    def syntax(self) -> Syntax:
        """Return its syntax tree, which takes a hundred times the room of its text.

        Raises:
            FormatError: nested too deep.
        """
        try:
            return Syntax(self.text, self._engine.get_ast_as_json())
        except RuntimeError as error:  # Python's own, too
            raise FormatError("the policy is nested too deep") from error

    def check_base(self, base: BaseDocuments) -> None:
        """Refuse what asks for reference values where none are shown, reached or not.

        Raises:
            ConfigError: it does; names the line.
        """
        if base.reference_values is None and self._asks is not None:
            raise ConfigError(f"line {self._asks}: {builtins.HELPER} {_NOT_HERE}")

    def evaluate(
        self,
        rules: Sequence[str],
        document: Mapping[str, Any],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate rules.

        Args:
            rules: Their names, such as ``allow``.
            document: Rego's ``input``.
            base: Rego's ``data``, as far as it seldom changes.
            request: Members of ``data`` that differ from one evaluation to the next.

        Returns:
            Rule → its value as JSON, None when it is undefined.

        Raises:
            ConfigError: the policy fails on these documents, for instance because two rules
                give different values.
            FormatError: a document that is no JSON, nested too deep, or of too many values.
        """
        check_input(document)
        self.check_base(base)
        if request is not None:
            check_data(request)
        # One query for all: a comprehension is empty where its rule is undefined.
        wanted = ", ".join(f"[x | x := data.policy.{rule}]" for rule in rules)
        try:
            self.show(document, base, request)
            found = self.ask(self._engine, f"[{wanted}]")
        except RuntimeError as error:
            # What an evaluation leaves behind that ended in the middle is nobody's business.
            self._engine, self._data = self._load(), None
            raise ConfigError(_source.describe(error), hint=self._meant(error)) from error
        return {rule: each[0] if each else None for rule, each in zip(rules, found, strict=True)}

    def show(
        self,
        document: Mapping[str, Any],
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> Engine:
        """Show the engine documents that were checked, and return it."""
        shown = base.digest, request
        if shown != self._data:
            self._data = None
            self._engine.clear_data()
            self._engine.add_data({**base.data, **(request or {})})
            self._base = base
            self._data = shown
        self._engine.set_input(document)
        return self._engine

    @staticmethod
    def ask(engine: Engine, query: str) -> Any:
        """Return the value of a query that always has one.

        Raises:
            RuntimeError: the engine's, also where it panics.
        """
        try:
            said = engine.eval_query_as_json(query)
        except BaseException as error:
            if type(error).__name__ != _PANIC:
                raise
            raise RuntimeError(f"the engine cannot do what a function is asked: {error}") from error
        return json.loads(said)["result"][0]["expressions"][0]["value"]

    def _load(self) -> Engine:
        engine = Engine()
        engine.set_gather_prints(True)
        engine.set_policy_length_config(
            max_col=_source.MAX_BYTES,
            max_file_bytes=_source.MAX_BYTES,
            max_lines=_source.MAX_LINES,
        )
        # An engine that held its policy would live for ever: the collector does not look into it.
        reference_value = partial(Policy._reference_value, weakref.proxy(self))
        engine.add_extension(builtins.HELPER, 1, reference_value)
        for name, (arity, why) in builtins.REFUSED.items():
            engine.add_extension(name, arity, _refusing(name, why))
        try:
            engine.add_policy(_source.FILE, self.text)
            engine.eval_query_as_json("true")  # orders the statements of every rule
        except RuntimeError as error:
            raise FormatError(
                f"the policy does not compile: {_source.describe(error)}", hint=self._meant(error)
            ) from error
        return engine

    def _reference_value(self, name: Any) -> Any:
        # An error, which nothing hides: null would be on no list of what is refused.
        if self._base.reference_values is None:
            raise ValueError(f"{builtins.HELPER} {_NOT_HERE}")
        if not isinstance(name, str):
            raise TypeError(f"{builtins.HELPER} takes the name of a reference value")
        if name in self._base.lapsed:
            raise ValueError(
                f"the reference value {name} has expired: register it again, or delete it"
            )
        return self._base.reference_values.get(name)

    def _meant(self, error: RuntimeError) -> str | None:
        found = _UNKNOWN_NAME.search(str(error))
        if found is None:
            return None
        code = _source.blanked(self.text)
        return did_you_mean(found[1], {"true", "false", *_heads(code)} - {found[1]})


def _heads(code: str) -> set[str]:
    return set(re.findall(r"^(?:default[ \t]+)?([A-Za-z_]\w*)", code, re.MULTILINE))


def _refusing(name: str, why: str) -> Any:
    def refuse(*_: Any) -> Any:
        raise ValueError(f"{name} is not available to policies: {why}")

    return refuse


def _check_calls(syntax: Syntax) -> None:
    """Refuse a policy that calls what it must not, wherever it does.

    Raises:
        FormatError: it does; names the line.
    """
    for rule in syntax.rules:
        for call in syntax.calls(rule.node):
            _check_call(syntax, call.name, call.line, len(call.arguments))
        for name, line in syntax.replacements(rule.node):
            if name in builtins.REFUSED:
                _check_call(syntax, name, line, None)
    _check_recursion(syntax)
    defaults = Counter(rule.dotted for rule in syntax.rules if rule.form == "Default")
    for name, count in defaults.items():
        if count > 1:  # the engine takes the first
            raise FormatError(f"the default of {name} is given twice")


def _check_call(syntax: Syntax, name: str, line: int, arguments: int | None) -> None:
    arities = syntax.functions.get(name)
    if arities is None and name in builtins.ALLOWED:
        arities = {len(builtins.ALLOWED[name])}
    if arities is None:
        known = {*builtins.ALLOWED, *syntax.functions}
        hint = None if name in builtins.REFUSED else did_you_mean(name, known)
        raise FormatError(
            f"line {line}: {name} is not available to policies",
            hint=hint or f"{builtins.why_not(name)}; docs/policies.md lists what there is",
        )
    # One more stands for the result, in the Rego of old.
    if arguments is not None and not {arguments, arguments - 1} & arities:
        wanted = " or ".join(map(str, sorted(arities)))
        raise FormatError(f"line {line}: {name} takes {wanted} arguments, not {arguments}")


def _asks_values(syntax: Syntax) -> int | None:
    """Return the line where a policy asks for reference values, wherever that is."""
    if builtins.HELPER in syntax.functions:
        return None  # it has one of its own
    calls = (call for rule in syntax.rules for call in syntax.calls(rule.node))
    return next((call.line for call in calls if call.name == builtins.HELPER), None)


def _check_recursion(syntax: Syntax) -> None:
    """Refuse functions that come back to themselves: the engine would overflow its stack."""
    calls: dict[str, set[str]] = {name: set() for name in syntax.functions}
    at: dict[str, Rule] = {}
    for rule in syntax.rules:
        if rule.is_function:
            at.setdefault(rule.dotted, rule)
            called = {call.name for call in syntax.calls(rule.node)}
            calls[rule.dotted] |= called & syntax.functions.keys()
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        first = min(error.args[1], key=lambda name: at[name].line)
        raise FormatError(
            f"line {at[first].line}: {first} calls itself, over others or directly"
        ) from error
