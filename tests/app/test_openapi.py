"""The OpenAPI document: sound in itself, complete in its errors, described in every field, and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from app.main import create_app
from app.problems import rows
from app.settings import Settings
from tests.app.asgi import serving
from tests.fakes import FakeModel

ERRORS = {
    ("post", "/models/{name}/load"): {400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503},
    ("post", "/models/{name}/unload"): {401, 403, 404, 413, 415, 429, 500, 503},
    ("post", "/classify"): {400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504},
    ("post", "/explain"): {400, 401, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504},
    ("post", "/classify/batch"): {400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504},
    ("get", "/models"): {401, 403, 413, 429, 500, 503},
    ("get", "/models/{name}"): {401, 403, 404, 413, 429, 500, 503},
    ("get", "/livez"): set(),
    ("get", "/readyz"): {503},
    ("get", "/healthz"): {503},
    ("get", "/metrics"): set(),
    ("post", "/hf"): {400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504},
    ("get", "/ping"): {503},
    ("post", "/invocations"): {400, 401, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504},
    ("get", "/vertex/health"): {503},
    ("post", "/vertex/predict"): {400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504},
    ("get", "/v2"): {401, 403, 413, 429},
    ("get", "/v2/health/live"): set(),
    ("get", "/v2/health/ready"): {503},
    ("get", "/v2/models/{name}"): {401, 403, 404, 413, 429, 500, 503},
    ("get", "/v2/models/{name}/ready"): {401, 403, 404, 413, 429, 500, 503},
    ("post", "/v2/models/{name}/infer"): {400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504},
    ("post", "/v2/repository/index"): {400, 401, 403, 408, 413, 415, 429, 500},
    ("post", "/v2/repository/models/{name}/load"): {400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503},
    ("post", "/v2/repository/models/{name}/unload"): {401, 403, 404, 413, 415, 429, 500, 503},
}
PROBES = {"/readyz", "/healthz", "/ping", "/vertex/health"}
PLAIN = {path for _, path in ERRORS if path.startswith(("/v2", "/hf"))}  # whose errors are `{"error": text}`


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), load=lambda _: FakeModel()).openapi()


def nodes(value: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with where it is."""
    if isinstance(value, dict):
        yield path, value
        for key, each in value.items():
            yield from nodes(each, f"{path}/{key}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from nodes(each, f"{path}/{i}")


def resolve(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    found: Any = document
    for key in reference[2:].split("/"):
        found = found[key.replace("~1", "/").replace("~0", "~")]
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): each for path, methods in document["paths"].items() for method, each in methods.items()}


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def test_what_it_is(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] == "SKNet"
    assert document["info"]["version"]
    assert set(operations(document)) == set(ERRORS)
    used = {tag for each in operations(document).values() for tag in each["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    references = {node["$ref"] for _, node in nodes(document) if "$ref" in node}
    for reference in references:
        assert resolve(document, reference)
    assert {f"#/components/schemas/{name}" for name in document["components"]["schemas"]} == references
    assert "ValidationError" not in str(document)
    assert not [path for path, node in nodes(document) if "$defs" in node]


def test_every_schema_is_a_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for _, node in nodes(document["paths"]):
        if isinstance(node.get("schema"), dict):
            jsonschema.Draft202012Validator.check_schema(node["schema"])


def test_every_operation_has_its_words_and_a_name_of_its_own(document: dict[str, Any]) -> None:
    every = operations(document)
    assert len({each["operationId"] for each in every.values()}) == len(every)
    for (method, path), each in every.items():
        assert each["summary"], path
        assert each["description"], path
        assert (method == "post" and not path.endswith("/unload")) == ("requestBody" in each)
        declared = {p["name"] for p in each.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
        for status, response in each["responses"].items():
            assert re.fullmatch("[1-5][0-9][0-9]", status)
            assert response["description"]


@pytest.mark.parametrize("key", sorted(ERRORS))
def test_every_route_declares_its_errors_as_problems(document: dict[str, Any], key: tuple[str, str]) -> None:
    responses = operations(document)[key]["responses"]
    assert {int(status) for status in responses} - {200} == ERRORS[key]
    for status in map(str, ERRORS[key]):
        if key[1] in PROBES:
            assert responses[status]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Ready"}
        elif key[1] in PLAIN:
            (content,) = responses[status]["content"].values()
            assert set(responses[status]["content"]) == {"application/json"}
            assert content["schema"] == {"$ref": "#/components/schemas/PlainError"}
            assert content["examples"]
            for example in content["examples"].values():
                validator(document, content["schema"]).validate(example["value"])
        else:
            content = responses[status]["content"]
            assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert set(content) == {"application/problem+json"}
            problems = [e["value"] for e in content["application/problem+json"]["examples"].values()]
            assert problems
            for problem in problems:
                assert problem["status"] == int(status)
                assert problem["type"].removeprefix("/problems/") in {row.slug for row in rows()}
                validator(document, {"$ref": "#/components/schemas/Problem"}).validate(problem)
        assert ("Retry-After" in responses[status].get("headers", {})) == (status in ("429", "503"))


def test_what_needs_a_key_says_so_and_what_is_open_too(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["key"]["type"], schemes["key"]["in"], schemes["key"]["name"]) == ("apiKey", "header", "X-API-Key")
    open_ones = {path for (_, path), each in operations(document).items() if each["security"] == []}
    assert open_ones == {"/livez", "/metrics", "/v2/health/live", "/v2/health/ready"} | PROBES
    for (_, path), each in operations(document).items():
        if path not in open_ones:
            scope = "admin" if path.endswith("load") else "predict"
            assert each["security"] == [{}, {"bearer": [scope]}, {"key": [scope]}]
            assert "WWW-Authenticate" in each["responses"]["401"]["headers"]


def is_nested(field: dict[str, Any]) -> bool:
    """A field of another schema, or a list of such: the examples stand there."""
    return "$ref" in str([field, field.get("items"), field.get("anyOf")])


def test_every_field_is_described_and_has_an_example(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field, each in schema.get("properties", {}).items():
            words = each if "$ref" not in each else resolve(document, each["$ref"]) | each
            assert words.get("description"), f"{name}.{field}"
            shown = "examples" in each or is_nested(each) or name == "Problem"  # a problem has one example for the whole
            assert shown, f"{name}.{field}"
    for (_, path), operation in operations(document).items():
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter["name"])
            assert parameter["schema"]["examples"], (path, parameter["name"])


def test_examples_are_valid(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, each in schema.get("properties", {}).items():
            for example in each.get("examples", []):
                validator(document, each).validate(example)
                assert example is not None, f"{name}.{field}"
        if "example" in schema:
            validator(document, schema).validate(schema["example"])


def test_every_form_of_a_body_is_declared(document: dict[str, Any]) -> None:
    bodies = {path: each["requestBody"]["content"] for (_, path), each in operations(document).items() if "requestBody" in each}
    assert set(bodies["/classify"]) == {"multipart/form-data", "image/*", "application/octet-stream", "application/json"}
    assert set(bodies["/classify/batch"]) == {"multipart/form-data", "application/json"}
    assert next(iter(bodies["/classify"])) == "multipart/form-data"  # what "Try it out" offers first
    file = bodies["/classify"]["multipart/form-data"]["schema"]["properties"]["file"]
    assert (file["type"], file["format"]) == ("string", "binary")  # the page shows a file chooser for exactly this


async def test_it_is_served_and_made_once(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.get("/openapi.json")).json() == document
    assert (await client.get("/openapi.json")).json() == document


async def test_real_answers_are_as_declared(document: dict[str, Any]) -> None:
    async with serving(max_body_bytes=500) as service:
        post, get = service.client.post, service.client.get
        answers = [
            ("post", "/classify", await post("/classify", files={"file": b"x"})),
            ("post", "/classify", await post("/classify?min_score=1", files={"file": b"x"})),
            ("post", "/classify", await post("/classify", files={"file": b"bad"})),
            ("post", "/classify", await post("/classify")),
            ("post", "/classify", await post("/classify?top_k=x", files={"file": b"x"})),
            ("post", "/classify", await post("/classify", content=b"x" * 501)),
            ("post", "/classify", await post("/classify", content=b"x", headers={"Content-Type": "text/plain"})),
            ("post", "/classify", await post("/classify", json={"url": "https://example.org/x.png"})),
            ("post", "/classify/batch", await post("/classify/batch", files=[("files", ("a", b"x")), ("files", ("b", b"bad"))])),
            ("post", "/classify/batch", await post("/classify/batch", json={"images": ["%", "eA=="]})),
            ("get", "/models", await get("/models")),
            ("get", "/models/{name}", await get("/models/default")),
            ("get", "/models/{name}", await get("/models/other")),
            ("get", "/livez", await get("/livez")),
            ("get", "/readyz", await get("/readyz")),
        ]
        await service.parts.classifier.close()
        answers += [("get", path, await get(path)) for path in ("/readyz", "/healthz", "/models")]
    for method, path, answer in answers:
        declared = operations(document)[method, path]["responses"][str(answer.status_code)]["content"]
        schema = declared[answer.headers["content-type"].partition(";")[0]]["schema"]
        validator(document, schema).validate(answer.json())
    assert {answer.status_code for _, _, answer in answers} == {200, 400, 403, 404, 413, 415, 422, 503}
