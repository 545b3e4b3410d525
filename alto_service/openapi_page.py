"""The OpenAPI description as a page that loads nothing from elsewhere."""

from importlib.resources import files
from typing import Any

__all__ = ["openapi_page"]


def openapi_page(description: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("alto_service").joinpath("openapi.html.j2").read_text(encoding="utf-8")
    operations = [
        {"path": path, "method": method.upper(), **_told(operation)}
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return environment.from_string(source).render(
        info=description["info"],
        operations=operations,
        schemas=[
            _schema(name, each) for name, each in description["components"]["schemas"].items()
        ],
    )


def _told(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    bodies = [_type(body["schema"]) for body in content.values()]
    return {
        "summary": operation.get("description") or operation.get("summary", ""),
        "parameters": [
            {"name": p["name"], "where": p["in"], "type": _type(p["schema"])}
            for p in operation.get("parameters", [])
        ],
        "body": bodies[0] if bodies else None,
        "answers": sorted(operation["responses"]),
    }


def _schema(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    fields = schema.get("properties", {})
    return {
        "name": name,
        "summary": schema.get("description", ""),
        "values": schema.get("enum", []),
        "fields": [{"name": key, "type": _type(value)} for key, value in fields.items()],
    }


def _type(schema: dict[str, Any]) -> str:
    """In a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    kind = str(schema.get("type", "anything"))
    return f"list of {_type(schema['items'])}" if kind == "array" and "items" in schema else kind
