"""schemathesis: whatever the schema allows, and much that it does not, brings a documented reply and never a 5xx."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/feedback", "POST"),
    ("/v1/feedback/{feedback_id}", "DELETE"),
    ("/v1/feedback/{feedback_id}/accept", "POST"),
    ("/v1/answers/{answer_id}", "GET"),
    ("/v1/models", "GET"),
    ("/readyz", "GET"),
    ("/healthz", "GET"),
    ("/metrics", "GET"),
]
# A GET without a parameter takes nothing that could be wrong.
CASES = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or method == "POST" or "{" in path
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(gateway: Any) -> Any:
    return schemathesis.openapi.from_dict(httpx.get(f"{gateway.url}/openapi.json").json())


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_every_reply_is_documented_and_none_is_a_server_error(
    gateway: Any, plain: Any, schema: Any, path: str, method: str, mode: GenerationMode
) -> None:
    operation = schema[path][method]

    @QUICK
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        reply = case.call(base_url=gateway.url, headers=gateway.headers("adam"))
        case.validate_response(reply, checks=CHECKS)

    check()


def test_the_documented_errors_are_those_of_openai(schema: Any) -> None:
    replies = schema.raw_schema["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "408", "413", "415", "429", "503"} <= set(replies)
    assert "422" not in replies
    assert "Retry-After" in replies["429"]["headers"]
