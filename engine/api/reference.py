"""An OpenAPI document as a page to read: no script, and nothing from other hosts, which may be out of reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

# Nothing but the page itself, and its own style, whatever stands in a description.
HEADERS: Mapping[str, str] = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_BODIES = ("application/json", "multipart/form-data")
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{ title }}</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
code, h3 { font-family: ui-monospace, monospace } summary { cursor: pointer }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid #8886; padding: .3rem .6rem .3rem 0 }
td { vertical-align: top; overflow-wrap: anywhere }
</style>
{% macro fields(schema) %}<table>{% for name, field in schema.get("properties", {}).items() %}
<tr><td><code>{{ name }}</code>{{ " *" if name in schema.get("required", []) }}<td>{{ field | kind }}
<td>{{ field.description }}</tr>{% endfor %}</table>{% endmacro %}
<h1>{{ title }}</h1><p>{{ info.description }}</p>
<p>For programs: <a href="openapi.json">openapi.json</a>. A star marks what has to be there.</p>
{% for path, methods in paths.items() %}{% for method, operation in methods.items() %}
<h3>{{ method | upper }} {{ base }}{{ path }}</h3><p>{{ operation.summary }}. {{ operation.description }}</p>
<details><summary>Fields and answers</summary>
<table>{% for one in operation.get("parameters", []) %}<tr><td><code>{{ one.name }}</code>{{ " *" if one.required }}
<td>{{ one.schema | kind }}, in the {{ one.in }}<td>{{ one.description }}</tr>{% endfor %}</table>
{% with body = operation | body %}{% if body %}<p>Body: {{ body | kind }}</p>{{ fields(body) }}{% endif %}{% endwith %}
<table>{% for status, answer in operation.responses.items() %}<tr><td>{{ status }}<td>{{ answer.description }}
<td>{% for media, one in answer.get("content", {}).items() %}<code>{{ media }}</code> {{ one.get("schema", {}) | kind }}
{% endfor %}</tr>{% endfor %}</table></details>{% endfor %}{% endfor %}
<h2>Objects</h2>{% for name, schema in schemas.items() %}
<details id="{{ name }}" open><summary><code>{{ name }}</code></summary>
<p>{{ schema.description }}{% if schema.enum %} {{ schema | kind }}{% endif %}</p>{{ fields(schema) }}
</details>{% endfor %}</html>
"""


def render(document: Mapping[str, Any], base: str) -> str:
    """The page of a document whose paths begin with `base`."""
    environment = Environment(autoescape=True, trim_blocks=True, finalize=lambda value: "" if value is None else value)
    environment.filters |= {"kind": _kind, "body": _body}
    return environment.from_string(_PAGE).render(
        title=document["info"]["title"],
        info={"description": None} | document["info"],
        base=base,
        paths=document["paths"],
        schemas=document.get("components", {}).get("schemas", {}),
    )


def _body(operation: Mapping[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    return next((content[media]["schema"] for media in _BODIES if media in content), None)


def _kind(schema: Mapping[str, Any]) -> Markup:
    """What a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if "anyOf" in schema or "oneOf" in schema:
        return Markup(" or ").join(map(_kind, schema.get("anyOf") or schema["oneOf"]))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return Markup(", ").join(Markup("<code>{}</code>").format(one) for one in values)
    if schema.get("type") == "array":
        return Markup("list of ") + _kind(schema.get("items", {}))
    return escape(schema.get("type", "anything"))
