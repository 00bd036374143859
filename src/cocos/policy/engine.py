# SPDX-License-Identifier: Apache-2.0
"""Rego policies, compiled once per set of base documents.

A plain query compiles the policy every time (14 ms for our largest); a compiled bundle
answers in well below a millisecond. rego-cpp fixes the base documents, Rego's ``data``,
when it compiles, so that bundles are kept by them.

The engine has no limits of its own and is native code: servers run it in worker processes
(:mod:`cocos.host.policies.workers`), which have.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from regopy import Bundle, Interpreter, RegoError
from regopy.rego_shared import LogLevel, rego_node_value

from cocos._recent import Recent
from cocos.errors import ConfigError, FormatError
from cocos.policy import _source
from cocos.policy._input import DirectInput
from cocos.policy.documents import NOTHING, BaseDocuments, is_direct, to_json, with_members

MAX_BUNDLES: Final = 64

VERDICTS: Final = ("allow", "trust_claims")


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
            rules: As of :meth:`Policy.query`.
            document: As of :meth:`Query.evaluate`.
            base: As of :meth:`Policy.query`.
            request: As there.

        Returns:
            Rule → its value as JSON, None when it is undefined.

        Raises:
            ConfigError: the policy does not compile, fails on these documents, or needs too
                much time or memory.
            FormatError: the policy or a document is nothing for the engine.
        """
        ...

    async def check(self, text: str) -> None:
        """Return if a policy compiles, and can be evaluated on empty documents.

        Raises:
            FormatError: it does not, crashes the engine, or needs too much time or memory.
        """
        ...


class Policy:
    """A policy that parses. Evaluation is pure: it sees its documents and nothing else."""

    def __init__(self, text: str) -> None:
        _source.check(text)
        self.text = text
        self._rewritten = _source.request_in_input(text)
        self._bundles: Recent[tuple[object, ...], Query] = Recent(MAX_BUNDLES)

    @classmethod
    def compile(cls, text: str) -> "Policy":
        """Parse a policy and try it on empty documents.

        Args:
            text: Rego of package ``policy``. ``query_reference_value(id)`` is available: the
                value registered under ``id``, or null.

        Raises:
            FormatError: it does not parse, calls a function that does not exist, or uses
                something that a policy must not use; names the line where it can.
        """
        policy = cls(text)
        try:
            policy.query(VERDICTS).evaluate({})
        except ConfigError as error:
            raise FormatError(
                f"the policy does not compile: {error.message}", hint=error.hint
            ) from error
        return policy

    def query(
        self,
        rules: Sequence[str],
        *,
        base: BaseDocuments = NOTHING,
        request: Mapping[str, Any] | None = None,
    ) -> "Query":
        """Compile the policy for some rules, unless that was done before.

        Args:
            rules: Their names, such as ``allow``.
            base: Rego's ``data``, as far as it seldom changes.
            request: Members of ``data`` that differ from one evaluation to the next.

        Raises:
            ConfigError: the policy does not compile, for instance because it calls a
                function that does not exist.
        """
        if request is not None and self._rewritten is not None:
            query = self._kept(self._rewritten, tuple(rules), base.text)
            return query.about({_source.REQUEST: request})
        if request is not None:
            return self._kept(self.text, tuple(rules), with_members(base, request))
        return self._kept(self.text, tuple(rules), base.text)

    def _kept(self, source: str, rules: tuple[str, ...], data: str) -> "Query":
        key = (source is self.text, rules, data)
        found = self._bundles.get(key)
        if found is None:
            found = Query.compile(source, rules, data)
            self._bundles.put(key, found)
        return found


class Query:
    """A policy compiled for some rules and base documents. One evaluation at a time."""

    def __init__(
        self,
        interpreter: Interpreter,
        bundle: Bundle,
        *,
        source: str,
        rules: tuple[str, ...],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._bundle = bundle
        self._source = source
        self._rules = rules
        self._more = more or {}

    @classmethod
    def compile(cls, source: str, rules: tuple[str, ...], data: str) -> "Query":
        """Compile the text of a policy with base documents, as JSON.

        Raises:
            ConfigError: the engine refuses it.
        """
        try:
            interpreter = Interpreter()
            interpreter.log_level = LogLevel.NONE
            interpreter.add_data_json(data)
            interpreter.add_module("policy.rego", source)
            if not _source.defines_helper(source):
                interpreter.add_module("helper.rego", _source.HELPER)
            bundle = interpreter.build(None, [f"policy/{rule}" for rule in rules])
        except (RegoError, ValueError, RecursionError) as error:
            raise ConfigError(_source.describe(str(error), source)) from error
        if not bundle.ok():
            raise ConfigError(
                "the engine refuses it",
                hint="look for a rule or default given twice, or an else that can never be reached",
            )
        _source.check_builtins(_builtins(bundle))
        return cls(interpreter, bundle, source=source, rules=rules)

    def about(self, more: Mapping[str, Any]) -> "Query":
        """Return the same query with further members in every input."""
        return Query(
            self._interpreter, self._bundle, source=self._source, rules=self._rules, more=more
        )

    def evaluate(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate the rules.

        Args:
            document: Rego's ``input``.

        Returns:
            Rule → its value as JSON, None when it is undefined.

        Raises:
            ConfigError: the policy fails on these documents, for instance because two rules
                give different values.
            FormatError: a document that is no JSON, nested too deep, or of too many values.
        """
        document = {**document, **self._more}
        direct = is_direct(document)
        try:
            if direct:
                self._interpreter.set_input(DirectInput(document))
            else:
                self._interpreter.set_input_term(to_json(document))
            return {rule: self._value(rule) for rule in self._rules}
        except (RegoError, ValueError, RecursionError) as error:
            # ValueError: what the engine returned is an error in a JSON-like coat.
            raise ConfigError(_source.describe(str(error), self._source)) from error

    def _value(self, rule: str) -> Any:
        output = self._interpreter.query_bundle_entrypoint(self._bundle, f"policy/{rule}")
        if not output.ok():
            raise RegoError(str(output), 1)
        expressions = output.results[0].expressions if output.results else []
        return expressions[0] if expressions else None


def _builtins(bundle: Bundle) -> list[str]:
    """Return the names of the built-in functions that a bundle calls."""
    # policy → static → functions → each one's name; Node.value knows JSON's types only.
    functions = bundle.node().at(1).at(0).at(2)
    names = [functions.at(number).at(0) for number in range(len(functions))]
    return [rego_node_value(name._impl) for name in names]  # noqa: SLF001
