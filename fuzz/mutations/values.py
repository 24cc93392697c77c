"""Mutations of JSON and TOML text: values of other types and sizes, keys, nesting."""

import json
import re

NUMBERS = ("1e308", "-1e308", "1e309", "1e-320", "NaN", "-Infinity", "-0.0", "-1", "0", "1", "0.5",
           "3.0", "127", "65536", "2147483647", "2147483648", "-2147483649", "4294967295",
           "4294967296", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
           "18446744073709551615", "18446744073709551616", "1" * 400)
TYPES = ("null", "true", "false", "[]", "{}", '""', '"x"', "1.5", "[null]", "[[1]]", '{"a": 1}',
         '"\\ud800"', '"0"', "[1, 2, 3]", '[""]', '{"": null}')
STRINGS = ('"' + "x" * 300_000 + '"', '"a\\u0000b\\u001b[31mred\\u0007"', '"\\u202eevil\\u2066\\u200b"',
           '"raw \x1b[2J control"', '"' + "../" * 40 + 'etc/passwd"', '"/dev/null"', '" "', '"\\n\\n"',
           '"' + "\U0001f999" * 2000 + '"', '"\ufeffx"', '"' + "a," * 9000 + '"', '"<s>"')
NESTED = ("[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000,
          "[" * 120 + "]" * 120, "[" * 100_000)
HOSTILE_KEYS = ("", "x" * 300_000, "\x1b[31m", "\u202ekey", "__metadata__", "a.b", "\ud83e\udd99")
MARK = "\ue000mark"


def mutate_json(text, random):
    """`text` with one mutation, and the mutation's description."""
    value = json.loads(text)
    action = random.choice(("replace",) * 6 + ("nudge",) * 2 + (
        "delete", "duplicate key", "rename", "unknown key", "swap", "syntax", "append"))
    parent, key = node(value, random)
    if parent is None or action == "syntax":
        return syntax(text, random)
    where = f"at {short(key)}"
    raw = None
    if action == "replace":
        kind = random.choice((NUMBERS, NUMBERS, TYPES, TYPES, STRINGS, NESTED))
        raw = random.choice(kind)
        parent[key] = MARK
        where = f"{short(raw)} {where}"
    elif action == "nudge":
        parent[key], raw = nudged(parent[key], random), None
        where = f"{short(parent[key])} {where}"
    elif action == "delete":
        del parent[key]
    elif action == "append":
        place = parent[key] if isinstance(parent[key], list) else parent
        if isinstance(place, list):
            place.append(place[0] if place else 1)
        else:
            place[MARK], raw = 1, random.choice(TYPES + NUMBERS)
    elif isinstance(parent, list):
        parent.insert(0, parent[key])
        action = "insert"
    elif action == "duplicate key":
        raw = json.dumps(key)
        parent[MARK] = random.choice((parent[key], None, 0, "x", []))
    elif action == "rename":
        parent[random.choice(HOSTILE_KEYS + (key.upper(), key + " "))] = parent.pop(key)
    elif action == "unknown key":
        parent[random.choice(HOSTILE_KEYS)] = random.choice((None, 0, "x", []))
    else:
        other = random.choice(list(parent))
        parent[key], parent[other] = parent[other], parent[key]
    made = json.dumps(value, ensure_ascii=random.random() < 0.5)
    if raw is not None:
        made = made.replace(json.dumps(MARK), raw).replace(f'"{MARK}"', raw)
    return made, f"{action} {where}"


def node(value, random):
    """A random place in `value`: a container and a key or an index of it."""
    parent, key = None, None
    while isinstance(value, (dict, list)) and value:
        if parent is not None and random.random() < 0.25:
            break
        keys = list(value) if isinstance(value, dict) else range(len(value))
        parent, key = value, random.choice(keys)
        value = parent[key]
    return parent, key


def nudged(value, random):
    """A value near `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return random.choice((value + 1, value - 1, value * 2, -value, value / 2, float(value),
                              str(value), value + 0.5, value * 1000))
    if isinstance(value, str):
        return random.choice((value + " ", value.upper(), value[:-1], value * 2, "\ufeff" + value,
                              value.encode("utf-16").decode("latin-1")))
    if isinstance(value, list):
        return random.choice((value[::-1], value * 2, value[:-1], value * 500, [value]))
    return random.choice(([value], str(value)[:50], {}))


def syntax(text, random):
    """Text that is JSON no longer, or a variant of it."""
    action = random.choice(("comma", "comment", "cut", "nest", "twice", "upper", "spaces", "quote"))
    at = random.randrange(len(text) + 1)
    made = {
        "comma": text[:at] + "," + text[at:],
        "comment": "// a comment\n" + text,
        "cut": text[:at],
        "nest": text[:at] + NESTED[0] + text[at:],
        "twice": text + text,
        "upper": text.upper(),
        "spaces": " " * 300_000 + text,
        "quote": text.replace('"', "'"),
    }[action]
    return made, f"{action} in the text"


def mutate_lines(text, random):
    """JSON lines with a mutation of one line, or of their order."""
    lines = text.split("\n")
    filled = [i for i, line in enumerate(lines) if line.strip()]
    if not filled or random.random() < 0.1:
        action = random.choice(("array", "blank", "one line"))
        made = {"array": "[" + ",".join(lines[i] for i in filled) + "]", "blank": "\n\n \n",
                "one line": text.replace("\n", " ")}[action]
        return made, action
    at = random.choice(filled)
    lines[at], what = mutate_json(lines[at], random)
    return "\n".join(lines), f"line {at + 1}: {what}"


TOML_VALUES = NUMBERS + ("inf", "nan", "+nan", "0x7fffffffffffffff", "1_000_000", "1e400", "true",
                         "[]", "[1, [2]]", "{}", "{ a = 1 }", '""', "1979-05-27", "''", '"x"',
                         '"""\n\n"""', "[1, ", '"\\u202ex"', '"\\u001b[31m"', '"' + "x" * 300_000 + '"',
                         '"/dev/null"', '".."', "[" * 50_000 + "]" * 50_000)


def mutate_toml(text, random):
    """TOML with another value, key, table or syntax."""
    lines = text.splitlines()
    at = random.choice([i for i, line in enumerate(lines) if " = " in line])
    key, _, value = lines[at].partition(" = ")
    action = random.choice(("value",) * 6 + ("duplicate", "delete", "unknown", "table", "dotted",
                                             "line", "move"))
    raw = random.choice(TOML_VALUES)
    if action == "value":
        lines[at] = f"{key} = {raw}"
    elif action == "duplicate":
        lines.insert(at, lines[at])
    elif action == "delete":
        del lines[at]
    elif action == "unknown":
        lines.insert(0, f'{random.choice(("x" * 1000, "rank-", chr(34) * 2, "résumé", "iterations"))} = 1')
    elif action == "table":
        lines.insert(at, random.choice(("[model]", "[[model]]", "[other]", "[a.b.c]", "[" * 5000)))
    elif action == "dotted":
        lines[at] = f"{key}.x = {value}"
    elif action == "line":
        lines[at] = lines[at][:random.randrange(len(lines[at]))]
    else:
        lines.append(lines.pop(at))
    return "\n".join(lines) + "\n", f"{action} {short(raw) if action == 'value' else ''} at {key}"


def short(value):
    """A value in a description: its beginning, printable."""
    text, length = str(value), len(str(value))
    text = re.sub(r"[^ -~]", lambda found: f"\\u{ord(found[0]):04x}", text[:40])
    return text if length <= 24 and len(text) <= 40 else f"{text[:20]}... ({length})"
