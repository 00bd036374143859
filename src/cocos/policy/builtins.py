# SPDX-License-Identifier: Apache-2.0
"""Which built-in functions of Rego a policy may call: one table.

The engine is the one in Trustee, and brings more functions than Trustee compiles in. What
stands here is what Trustee has too, gives the same there, as public cases and a comparison
of both show (docs/adr), and looks at nothing but its arguments: a policy means the same in
both, today and tomorrow. Everything else is refused by its name when a policy is set, and
raises when it is called all the same.
"""

from collections.abc import Mapping
from typing import Final

HELPER: Final = "query_reference_value"
"""Not Rego's but Trustee's and ours: the value registered under a name, or null."""

ALLOWED: Final[Mapping[str, str]] = {
    HELPER: "s",
    # numbers
    "abs": "n",
    "bits.and": "nn",
    "bits.lsh": "nn",
    "bits.negate": "n",
    "bits.or": "nn",
    "bits.rsh": "nn",
    "bits.xor": "nn",
    "ceil": "n",
    "floor": "n",
    "numbers.range": "nn",
    "numbers.range_step": "nnn",
    "round": "n",
    "to_number": "*",
    # many values
    "array.concat": "aa",
    "array.reverse": "a",
    "array.slice": "ann",
    "count": "*",
    "intersection": "t",
    "max": "c",
    "min": "c",
    "product": "c",
    "sort": "c",
    "sum": "c",
    "union": "t",
    # objects
    "json.filter": "oc",
    "json.remove": "oc",
    "object.filter": "o*",
    "object.get": "o**",
    "object.keys": "o",
    "object.remove": "o*",
    "object.subset": "**",
    "object.union": "oo",
    "object.union_n": "a",
    # text
    "concat": "sc",
    "contains": "ss",
    "endswith": "ss",
    "format_int": "nn",
    "indexof": "ss",
    "indexof_n": "ss",
    "lower": "s",
    "replace": "sss",
    "split": "ss",
    "sprintf": "sa",
    "startswith": "ss",
    "strings.any_prefix_match": "**",
    "strings.any_suffix_match": "**",
    "strings.count": "ss",
    "strings.replace_n": "os",
    "strings.reverse": "s",
    "substring": "snn",
    "trim": "ss",
    "trim_left": "ss",
    "trim_prefix": "ss",
    "trim_right": "ss",
    "trim_space": "s",
    "trim_suffix": "ss",
    "upper": "s",
    "regex.find_all_string_submatch_n": "ssn",
    "regex.find_n": "ssn",
    "regex.is_valid": "*",
    "regex.match": "ss",
    "regex.replace": "sss",
    "regex.split": "ss",
    "regex.template_match": "ssss",
    # other notations
    "base64.decode": "s",
    "base64.encode": "s",
    "base64.is_valid": "*",
    "json.is_valid": "*",
    "json.marshal": "*",
    "json.marshal_with_options": "*o",
    "json.unmarshal": "s",
    "units.parse": "s",
    "units.parse_bytes": "s",
    # time, as far as it is told what time
    "time.add_date": "nnnn",
    "time.clock": "*",
    "time.date": "*",
    "time.diff": "**",
    "time.format": "*",
    "time.parse_duration_ns": "s",
    "time.parse_ns": "ss",
    "time.parse_rfc3339_ns": "s",
    "time.weekday": "*",
    # types
    "is_array": "*",
    "is_boolean": "*",
    "is_null": "*",
    "is_number": "*",
    "is_object": "*",
    "is_set": "*",
    "is_string": "*",
    "type_name": "*",
}
"""Name → a letter for each argument.

``s`` text, ``n`` number, ``a`` array, ``t`` set or array, ``o`` object, ``c`` array or set,
``*`` anything, or more than one of them.
"""

_MORE: Final = "it looks at more than its arguments: a verdict depends on input and data alone"
_ELSEWHERE: Final = "Trustee's engine has no such function, or it is not known to agree with it"

REFUSED: Final[Mapping[str, tuple[int, str]]] = {
    "http.send": (1, _MORE),
    "opa.runtime": (0, _MORE),
    "print": (1, _MORE),
    "rand.intn": (2, _MORE),
    "test.sleep": (1, _MORE),
    "time.now_ns": (0, _MORE),
    "trace": (1, _MORE),
    "uuid.rfc4122": (1, _MORE),
    **dict.fromkeys(
        (
            "base64url.decode",
            "base64url.encode",
            "base64url.encode_no_pad",
            "glob.quote_meta",
            "hex.decode",
            "hex.encode",
            "json.verify_schema",
            "net.cidr_expand",
            "net.cidr_is_valid",
            "semver.is_valid",
            "urlquery.decode",
            "urlquery.decode_object",
            "urlquery.encode",
            "urlquery.encode_object",
            "uuid.parse",
            "walk",
            "yaml.is_valid",
            "yaml.marshal",
            "yaml.unmarshal",
        ),
        (1, _ELSEWHERE),
    ),
    **dict.fromkeys(
        (
            "__builtin_sets.intersection",
            "__builtin_sets.union",
            "graph.reachable",
            "graph.reachable_paths",
            "json.match_schema",
            "json.patch",
            "net.cidr_contains",
            "regex.globs_match",
            "semver.compare",
        ),
        (2, _ELSEWHERE),
    ),
    "glob.match": (3, _ELSEWHERE),
}
"""What the engine has and policies may not call: name → number of arguments, and why."""


def why_not(name: str) -> str:
    """Return why a function that is not in :data:`ALLOWED` is not."""
    return REFUSED[name][1] if name in REFUSED else _ELSEWHERE
