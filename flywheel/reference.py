"""The reference pages in docs/, made from the code: `make docs` writes them, and a test says when they are stale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from flywheel.cli import main as commands
from serving.app import api
from tasks.core import layout

MADE = "Made from the code by `make docs`; do not edit.\n"
LIMITS = {
    "minimum": "at least {:.10g}",
    "exclusiveMinimum": "more than {:.10g}",
    "maximum": "at most {:.10g}",
    "maxLength": "at most {} characters",
}
SETTING = re.compile(r"(?P<indent> *)(?P<name>[\w-]+): *(?P<value>[^#]*?) *(?:# (?P<words>.*))?$")


def pages(root: Path) -> dict[Path, str]:
    """Path below the root → what it should hold."""
    schema = api().openapi()
    return {
        Path("docs/openapi.json"): json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
        Path("docs/reference_http.md"): http_page(schema),
        Path("docs/reference_commands.md"): commands_page(commands),
        Path("docs/reference_params.md"): params_page((root / layout.PARAMS).read_text(encoding="utf-8")),
    }


def http_page(schema: dict[str, Any]) -> str:
    """Every address with what it takes and gives."""
    parts = [f"# HTTP reference\n\n{MADE}\nThe same: [openapi.json](openapi.json). In words: [serving](serving.md)."]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            words = f"{operation['summary']}. {operation.get('description', '')}".rstrip()
            parts += [f"## {method.upper()} {path}", words]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body is not None:
                parts.append(_fields(_resolved(body, schema), schema))
            codes = [f"{code} {reply['description']}" for code, reply in sorted(operation["responses"].items())]
            parts.append(f"Replies: {'; '.join(codes)}.")
    return "\n\n".join(parts) + "\n"


def _fields(body: dict[str, Any], schema: dict[str, Any]) -> str:
    needed = set(body.get("required", ()))
    rows = [("field", "takes"), ("---", "---")]
    for name, field in body["properties"].items():
        rows.append((f"`{name}`" + (" (needed)" if name in needed else ""), _words(field, schema)))
    return "\n".join(f"| {name} | {words} |" for name, words in rows)


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = field.get("$ref", "").rpartition("/")[2]
    return dict(schema["components"]["schemas"][name]) if name else field


def _words(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a field takes; that null is as good as absent goes without saying."""
    field = _resolved(field, schema)
    if choices := field.get("anyOf"):
        return " or ".join(_words(choice, schema) for choice in choices if choice.get("type") != "null")
    if "enum" in field or "const" in field:
        values = [value for value in field.get("enum", [field.get("const")]) if value is not None]
        return ", ".join(f"`{json.dumps(value)}`" for value in values) or "null"
    if field.get("type") == "array":
        return f"a list of {_words(field['items'], schema)}" if field.get("items") else "a list"
    if field.get("type") == "object" and "properties" in field:
        inner = ", ".join(f"`{name}`: {_words(value, schema)}" for name, value in field["properties"].items())
        return f"{{{inner}}}"
    limits = [words.format(field[key]) for key, words in LIMITS.items() if key in field]
    return ", ".join([str(field.get("type", "anything")), *limits])


def commands_page(group: click.Group) -> str:
    """Every verb with its arguments and options."""
    parts = [f"# Command-line reference\n\n{MADE}\n`.venv/bin/flywheel VERB`."]
    for name, command in sorted(group.commands.items()):
        arguments = [param for param in command.params if isinstance(param, click.Argument)]
        usage = " ".join(argument.make_metavar(click.Context(command)) for argument in arguments)
        parts.append(f"## flywheel {name} {usage}".rstrip())
        parts += [re.sub(r"\s+", " ", text).strip() for text in (command.help or "").strip().split("\n\n")]
        options = [param for param in command.params if isinstance(param, click.Option)]
        rows = [f"| `{', '.join(option.opts + option.secondary_opts)}` | {option.help or ''} |" for option in options]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def params_page(source: str) -> str:
    """Every setting of params.yaml with its value there and the comment beside it."""
    parts = [f"# Settings reference\n\n{MADE}\nThe values are those of params.yaml, which is where they are changed."]
    above: list[str] = []
    rows: list[str] = ["| setting | value | |\n|---|---|---|"]
    for line in source.splitlines():
        found = SETTING.fullmatch(line)
        if found is None:
            if rows[-1].endswith(" |") and (more := re.fullmatch(r" +# (.*)", line)):
                rows[-1] = f"{rows[-1].removesuffix(' |')} {more[1]} |"
            continue
        above = [*above[: len(found["indent"]) // 2], found["name"]]
        value = f"`{found['value']}`" if found["value"] else ""
        if value or found["words"]:
            words = (found["words"] or "").replace("|", "\\|")
            rows.append(f"| `{'.'.join(above)}` | {value} | {words} |")
    return "\n\n".join([*parts, "\n".join(rows)]) + "\n"


def write(root: Path) -> list[Path]:
    """Write what is stale; returns which."""
    stale = [path for path, text in pages(root).items() if not is_fresh(root / path, text)]
    for path in stale:
        (root / path).write_text(pages(root)[path], encoding="utf-8")
    return stale


def is_fresh(path: Path, text: str) -> bool:
    """Whether a page is what it should be."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    for page in write(layout.home()):
        print(page)
