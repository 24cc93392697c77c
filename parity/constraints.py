#!/usr/bin/env python3
"""Schemas for structured output, and the validation of the generated texts by Python's jsonschema.

    python3 parity/constraints.py schemas FOLDER   # writes FOLDER/schemas.json
    OPENELM_CONSTRAINTS=FOLDER cargo test -p openelm-core --test constraint_live -- --ignored
    python3 parity/constraints.py validate FOLDER  # reads FOLDER/texts.json

`pip install jsonschema` installs the validator; `make parity` does not run this script.
"""

import json
import sys
from pathlib import Path



def closed(properties, required=None):
    """An object with these properties only."""
    required = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def text(**keywords):
    return {"type": "string", **keywords}


def number(**keywords):
    return {"type": "number", **keywords}


def integer(**keywords):
    return {"type": "integer", **keywords}


def array(items, **keywords):
    return {"type": "array", "items": items, **keywords}


NAME = text(minLength=1, maxLength=12)
SCHEMAS = [
    closed({"name": NAME, "age": integer(minimum=0, maximum=150)}),
    closed({"name": NAME, "tags": array(NAME, maxItems=3)}, ["name"]),
    closed({"a": closed({"b": closed({"c": closed({"d": {"type": "boolean"}})})})}),
    {"enum": ["fox", "wolf", "bear"]},
    {"enum": ["é", "日本", "🦙", 'a"b\\c', "tab\t", 1, -2.5, None, True, ["x"], {"k": 1}]},
    {"const": {"kind": "tale", "parts": [1, 2]}},
    integer(minimum=-7, maximum=12),
    integer(exclusiveMinimum=99, exclusiveMaximum=1001),
    integer(minimum=0, maximum=1000, multipleOf=5),
    number(minimum=-1.5, maximum=2.25),
    number(exclusiveMinimum=0, exclusiveMaximum=1),
    number(minimum=0, maximum=10, multipleOf=0.25),
    array(integer(minimum=0, maximum=9), minItems=2, maxItems=5),
    array({"type": "null"}, minItems=0, maxItems=2),
    array(array(integer(minimum=0, maximum=3), minItems=1, maxItems=2), minItems=1, maxItems=3),
    {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, integer(minimum=1, maximum=3)],
        "items": False,
        "minItems": 2,
    },
    {
        "$defs": {"point": closed({"x": integer(minimum=0, maximum=9), "y": integer(minimum=0, maximum=9)})},
        **array({"$ref": "#/$defs/point"}, minItems=1, maxItems=3),
    },
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": closed(
                {"value": integer(minimum=0, maximum=9), "children": array({"$ref": "#/$defs/tree"}, maxItems=1)}
            )
        },
    },
    {
        "definitions": {"a/b": NAME, "c~d": integer(minimum=0, maximum=1)},
        **closed({"l": {"$ref": "#/definitions/a~1b"}, "r": {"$ref": "#/definitions/c~0d"}}),
    },
    text(minLength=3, maxLength=5),
    text(maxLength=0),
    text(pattern="^[A-Z][a-z]{2,6}$"),
    text(pattern="^(\\+[0-9]{1,3} )?[0-9]{3}-[0-9]{4}$"),
    text(pattern="ab", maxLength=10),
    text(pattern="^[α-ω]{2,5}$"),
    text(pattern="^[\\u4e00-\\u4e0f🦊]{1,4}$"),
    text(format="date"),
    text(format="time"),
    text(format="date-time"),
    text(format="ipv4"),
    text(format="uuid"),
    text(format="email", maxLength=30),
    {"anyOf": [closed({"fox": NAME}), closed({"wolf": integer(minimum=0, maximum=9)}), {"type": "null"}]},
    {"oneOf": [closed({"kind": {"const": "a"}, "n": integer(minimum=0, maximum=9)}), closed({"kind": {"const": "b"}, "s": NAME})]},
    {"allOf": [integer(minimum=0, maximum=50), {"minimum": 40}, {"multipleOf": 3}]},
    {"type": ["string", "null", "boolean"], "maxLength": 6},
    {"type": "object", "patternProperties": {"^[a-c]$": integer(minimum=0, maximum=9)}, "additionalProperties": False, "maxProperties": 2},
    {"type": "object", "additionalProperties": integer(minimum=0, maximum=9), "maxProperties": 2},
    closed({"é": text(maxLength=4), "日本": {"type": "boolean"}, 'q"\\': {"type": "null"}}, ["日本"]),
    closed(
        {
            "title": text(minLength=1, maxLength=20),
            "hero": closed({"name": NAME, "kind": {"enum": ["fox", "king", "girl"]}, "age": integer(minimum=1, maximum=900)}),
            "scenes": array(closed({"place": NAME, "night": {"type": "boolean"}}), minItems=1, maxItems=2),
            "rating": number(minimum=0, maximum=5),
        }
    ),
]


def validate(folder):
    import jsonschema

    results = json.loads((folder / "texts.json").read_text())
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    ended, wrong = 0, 0
    for result in results:
        schema = SCHEMAS[result["schema"]]
        validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
        if not result["ended"]:
            continue
        ended += 1
        try:
            errors = [error.message for error in validator.iter_errors(json.loads(result["text"]))]
        except ValueError as error:
            errors = [str(error)]
        if errors:
            wrong += 1
            print(f"schema {result['schema']}, {result['model']}: {result['text']!r}: {errors[0]}")
    open_schemas = sorted(set(range(len(SCHEMAS))) - {r["schema"] for r in results if r["ended"]})
    print(
        f"{len(results)} texts under {len(SCHEMAS)} schemas: {ended} ended, {wrong} of them invalid; "
        f"{len(results) - ended} reached the limit; schemas without a complete text: {open_schemas}"
    )
    sys.exit(bool(wrong or open_schemas))


def main():
    command, folder = sys.argv[1], Path(sys.argv[2])
    assert len(SCHEMAS) == 40, len(SCHEMAS)
    if command == "schemas":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schemas.json").write_text(json.dumps(SCHEMAS))
    else:
        validate(folder)


main()
