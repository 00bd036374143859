# SPDX-License-Identifier: Apache-2.0
"""A table of a configuration file, read key by key, so that nothing in it goes unnoticed.

Whoever reads a table asks for every key that there is; :meth:`Table.end` then names what
was never asked for, with the nearest name that was. Values are not shown: they may be
secrets. What is wrong is collected, so that an operator sees all of it at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from cocos.errors import ConfigError, did_you_mean, proposable

T = TypeVar("T")

Flat: TypeAlias = dict[str, Any]
"""Settings by their flat names."""

_KINDS: Final[Mapping[type, str]] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    dict: "a table",
    list: "a list",
}


class Table:
    """One table, its place in the file, and what is still unread.

    Args:
        value: What the file has there.
        place: Where: ``admin.personas[0]``; empty for the whole file.
        notes: Collects sentences on what is accepted, but has no effect here.
        problems: Collects what is wrong.
    """

    def __init__(
        self, value: object, place: str, notes: list[str], problems: list[ConfigError]
    ) -> None:
        self.place = place
        self.notes = notes
        self.problems = problems
        if not isinstance(value, dict):
            self.wrong(f"{place} is not a table")
            value = {}
        self._left: dict[str, Any] = dict(value)
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self._asked.add(name)
        return name in self._left

    def name(self, key: str) -> str:
        """Return the whole name of a key: ``admin.personas[0].id``."""
        return f"{self.place}.{key}" if self.place else key

    def wrong(self, message: str, hint: str | None = None) -> None:
        """Note what is wrong."""
        self.problems.append(ConfigError(message, hint=hint))

    def holds_text(self, key: str) -> bool:
        """Tell whether a key that may be something else is a text."""
        return key in self and isinstance(self._left[key], str)

    def text(self, key: str) -> str | None:
        """Take a text."""
        return self._take(key, str)

    def flag(self, key: str) -> bool | None:
        """Take a truth value."""
        return self._take(key, bool)

    def number(self, key: str) -> int | None:
        """Take a whole number."""
        return self._take(key, int)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Take a list of texts."""
        value = self._take(key, list)
        if value is not None and not all(isinstance(item, str) for item in value):
            self.wrong(f"{self.name(key)} is not a list of texts")
            return None
        return None if value is None else tuple(value)

    def table(self, key: str) -> "Table":
        """Take a table; an empty one when there is none."""
        return Table(self._take(key, dict) or {}, self.name(key), self.notes, self.problems)

    def tables(self, key: str) -> list["Table"]:
        """Take a list of tables."""
        return [
            Table(value, f"{self.name(key)}[{number}]", self.notes, self.problems)
            for number, value in enumerate(self._take(key, list) or [])
        ]

    def required(self, key: str) -> str:
        """Take a text that must be there; it is empty if it is not."""
        value = self.text(key)
        if not value:
            self.wrong(f"{self.place} needs {key}")
        return value or ""

    def choice(self, key: str, choices: Mapping[str, str | None]) -> str | None:
        """Take a text that is one of some.

        Args:
            key: Its name.
            choices: What is possible in Trustee → why not here, or None if it is.
        """
        value = self.text(key)
        if value is None:
            return None
        possible = proposable(name for name, why_not in choices.items() if why_not is None)
        hint = f"possible: {', '.join(possible)}" if possible else None
        if value not in choices:
            self.wrong(f"{self.name(key)} = {value[:64]!r} is unknown", hint)
            return None
        if (why_not := choices[value]) is not None:
            self.wrong(f"{self.name(key)} = {value!r} is not possible here: {why_not}", hint)
            return None
        return value

    def without_effect(self, because: str, *keys: str) -> None:
        """Take keys, whatever their values, that change nothing here, and note why."""
        for key in keys:
            if key in self:
                del self._left[key]
                self.notes.append(f"{self.name(key)}: {because}")

    def refuse(self, because: str, *keys: str, unless: tuple[object, ...] = ()) -> None:
        """Refuse keys that are there.

        Args:
            because: Why they are not possible here.
            keys: Their names.
            unless: Values that mean the same as leaving the key out.
        """
        for key in keys:
            if key not in self:
                continue
            if self._left.pop(key) not in unless:
                self.wrong(f"{self.name(key)} is not possible here: {because}")

    def unread(self, key: str) -> Any:
        """Take a value of whatever kind, for somebody else to check; None when absent."""
        return self._left.pop(key, None) if key in self else None

    def end(self) -> None:
        """Refuse what nobody asked for."""
        for key in self._left:
            self.wrong(
                f"{self.name(key)} is not a setting that this KBS knows",
                did_you_mean(key, sorted(self._asked)),
            )

    def _take(self, key: str, kind: type[T]) -> T | None:
        if key not in self:
            return None
        value = self._left.pop(key)
        # A bool is an int to Python.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.wrong(f"{self.name(key)} is not {_KINDS[kind]}")
            return None
        return value


def together(problems: Sequence[ConfigError]) -> ConfigError:
    """Return one error that names all problems, each with what to do."""
    if len(problems) == 1:
        return problems[0]
    told = [f"{each.message} ({each.hint})" if each.hint else each.message for each in problems]
    return ConfigError(f"{len(told)} things are wrong: {'; '.join(told)}")
