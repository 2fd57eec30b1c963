"""`benchmarks.soak.contract_bad`, with `contract_hooks` below it: they change the document of whichever dialects are on."""

from __future__ import annotations

import json

import pytest
from schemathesis import HookContext

from app.main import create_app
from app.settings import Settings
from benchmarks.soak.contract_bad import before_load_schema

DIALECTS = Settings().dialects


@pytest.mark.parametrize("dialects", [DIALECTS, "none"])
def test_documents_with_and_without_dialects(dialects: str) -> None:
    document = json.loads(json.dumps(create_app(Settings(dialects=dialects)).openapi()))
    schemas = document["components"]["schemas"]
    assert ("VertexParameters" in schemas) == ("OipInput" in schemas) == (dialects == DIALECTS)
    before_load_schema(HookContext(), document)
    assert not [field for field in schemas["ImageJson"]["properties"].values() if "examples" in field]
    if dialects == DIALECTS:
        assert schemas["VertexParameters"]["properties"]["top_k"]["maximum"] == 10
        assert not [field for field in schemas["OipInput"]["properties"].values() if "examples" in field]
