# SPDX-License-Identifier: Apache-2.0
"""OpenAPI 3.1 out of the routes and types that serve.

What a handler takes and gives stands above the handler, by :func:`operation`; paths and
methods come from the router's table, schemas from the types that requests are decoded
with and answers encoded from. Nothing is written down twice.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cocos._types import JsonObject
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CallerError,
    CocosError,
    InternalError,
    NotFoundError,
    StorageError,
    TooLargeError,
)
from cocos.wire import json
from cocos.wire.kbs.protocol import Problem

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain"
PROBLEM: Final = "application/problem+json"

_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_REFERENCE: Final = "#/components/schemas/{name}"
_UNLISTED: Final = frozenset({"HEAD"})

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Content:
    """A body: JSON of one of some types that msgspec knows, else bytes or text."""

    shapes: tuple[Any, ...] = ()
    media_type: str = JSON


def json_of(*shapes: Any) -> Content:
    """Return JSON of one of some types."""
    return Content(shapes)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a handler does, for :func:`document`; see :func:`operation`."""

    summary: str
    body: Content | None = None
    answer: Content | None = None
    status: int = 200
    security: Sequence[str] = ()
    errors: Sequence[type[CocosError]] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def operation(summary: str, **more: Any) -> Callable[[Handler], Handler]:
    """Say of a handler what it does.

    Args:
        summary: One line.
        more: Members of :class:`Operation`: ``body`` and ``answer``, ``status`` of the
            answer, ``security`` with names of schemes of which one is enough, ``errors``
            beside those that follow from the rest, and what may stand in query and
            headers, each with a description.
    """

    def describe(handler: Handler) -> Handler:
        handler.operation = Operation(summary, **more)  # type: ignore[attr-defined]
        return handler

    return describe


@dataclass(frozen=True, slots=True)
class About:
    """What the routes do not tell.

    Attributes:
        title: Of the interface.
        version: Of the program.
        description: A paragraph.
        schemes: Ways to prove oneself, as OpenAPI has them.
        parts: Parameter of a route that spans slashes → names of its segments.
        parameters: Schema of a parameter in a path; text without.
    """

    title: str
    version: str
    description: str
    schemes: Mapping[str, JsonObject]
    parts: Mapping[str, Sequence[str]]
    parameters: Mapping[str, JsonObject]


def openapi_route(path: str, routes: Iterable[BaseRoute], about: About) -> Route:
    """Return a route that serves the description of ``routes`` and of itself."""

    @operation("This description", answer=json_of(JsonObject))
    async def openapi(_request: Request) -> Response:
        return Response(text(), media_type=JSON)

    @cache
    def text() -> bytes:
        return json.encode(document([*routes, own], about))

    own = Route(path, openapi, methods=["GET"])
    return own


def document(routes: Iterable[BaseRoute], about: About) -> JsonObject:
    """Return the description of an interface.

    Raises:
        InternalError: a handler does not say what it does.
    """
    listed = [
        (route, method, _operation(route))
        for route in routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - _UNLISTED)
    ]
    shapes = [
        shape
        for _, _, what in listed
        for content in (what.body, what.answer)
        if content is not None
        for shape in content.shapes
    ]
    schemas, components = msgspec.json.schema_components(
        [Problem, *shapes], ref_template=_REFERENCE
    )
    by_shape = dict(zip(map(repr, [Problem, *shapes]), schemas, strict=True))
    paths: dict[str, JsonObject] = {}
    names: set[str] = set()
    for route, method, what in listed:
        path, parameters = _path(route.path, about)
        name = route.endpoint.__name__
        name = name if name not in names else f"{name}_{method.lower()}"
        names.add(name)
        described = _described(what, name, parameters, by_shape)
        paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": about.version,
            "description": about.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": dict(about.schemes)},
    }


def _operation(route: Route) -> Operation:
    found: Operation | None = getattr(route.endpoint, "operation", None)
    if found is None:
        raise InternalError(f"the handler of {route.path} does not say what it does")
    return found


def _path(template: str, about: About) -> tuple[str, list[JsonObject]]:
    """Return a path in OpenAPI's words, with its parameters."""
    parameters: list[JsonObject] = []

    def part(match: re.Match[str]) -> str:
        names = about.parts.get(match[1], (match[1],))
        parameters.extend(
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": dict(about.parameters.get(name, {"type": "string", "minLength": 1})),
            }
            for name in names
        )
        return "/".join(f"{{{name}}}" for name in names)

    return _PARAMETER.sub(part, template), parameters


def _described(
    what: Operation,
    name: str,
    parameters: list[JsonObject],
    schemas: Mapping[str, JsonObject],
) -> JsonObject:
    def content(found: Content) -> JsonObject:
        schema: JsonObject = {"type": "string"} if found.media_type == TEXT else {}
        if found.shapes:
            one, *others = [schemas[repr(shape)] for shape in found.shapes]
            schema = {"anyOf": [one, *others]} if others else one
        return {found.media_type: {"schema": schema}}

    answer: JsonObject = {"description": "Done"}
    if what.answer is not None:
        answer["content"] = content(what.answer)
    refusal = content(Content((Problem,), PROBLEM))
    responses: JsonObject = {
        str(error.http_status): {"description": _sentence(error), "content": refusal}
        for error in _errors(what, parameters)
    }
    responses[str(what.status)] = answer
    described: JsonObject = {"operationId": name, "summary": what.summary}
    optional = [
        {"name": each, "in": place, "description": text, "schema": {"type": "string"}}
        for place, known in (("query", what.query), ("header", what.headers))
        for each, text in known.items()
    ]
    if parameters or optional:
        described["parameters"] = parameters + optional
    if what.body is not None:
        described["requestBody"] = {"required": True, "content": content(what.body)}
    described["responses"] = dict(sorted(responses.items()))
    described["security"] = [{scheme: []} for scheme in what.security]
    return described


def _errors(what: Operation, parameters: Sequence[JsonObject]) -> list[type[CocosError]]:
    """Return the errors that an operation can end in."""
    found: list[type[CocosError]] = [CallerError, InternalError, StorageError, *what.errors]
    if what.security:
        found += [AuthenticationError, AccessDeniedError]
    if what.body is not None:
        found.append(TooLargeError)
    if parameters:
        found.append(NotFoundError)
    return found


def _sentence(error: type[CocosError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]
