"""What `/openapi.json` promises, held against the real processes: for every route, requests that fit its schema and
requests that do not, with and without credentials. No answer is a failure of the server or one that is not documented.

New routes are tried by themselves. The examples are drawn from a fixed seed.
"""

import asyncio
import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from processes import PASSWORD, PATIENCE_SECONDS, Rest, installed
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

_GENERAL: Final[Any] = checks
_OPENAPI: Final[Any] = openapi_checks
CHECKS: Final = [
    _GENERAL.not_a_server_error,
    _OPENAPI.status_code_conformance,
    _OPENAPI.content_type_conformance,
    _OPENAPI.response_headers_conformance,
    _OPENAPI.response_schema_conformance,
    _OPENAPI.negative_data_rejection,
]
Operation: TypeAlias = Any
"""Of schemathesis, which types its own only in part; so are its cases."""
EXAMPLES: Final = {GenerationMode.POSITIVE: 5, GenerationMode.NEGATIVE: 2}
EXAMPLES_OF_NOBODY: Final = 1
COMMAND: Final = 'echo line; echo text > "$TOWLINE_ARTIFACTS/note.txt"'
DAG: Final[dict[str, Any]] = {"nodes": [{"id": "a", "type": "SHELL", "config": {"command": COMMAND}}], "edges": []}
SECRETS_KEY: Final = base64.b64encode(hashlib.sha256(b"of the tests").digest()).decode()
EMAIL: Final = "admin@example.com"
OWN: Final = ("/api/auth/logout", "/api/auth/password", "/api/auth/refresh")
"""What ends the caller's own session: tried without its token."""


@dataclass(slots=True)
class Trial:
    """Tries operations, and gathers what is wrong with their answers."""

    http: str
    known: Mapping[str, str]
    """Path parameters that name something."""
    found: list[str] = field(default_factory=list[str])
    answers: int = 0
    successes: set[str] = field(default_factory=set[str])

    def run(self, operation: Operation, mode: GenerationMode, token: str, examples: int) -> None:
        """Tries one operation; every other request is about something that is there."""
        turn = iter(range(examples + 1))

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def attempt(case: Any) -> None:
            if next(turn, 1) % 2 == 0:
                case.path_parameters.update(
                    {name: value for name, value in self.known.items() if name in case.path_parameters}
                )
            self._call(operation.label, case, token)

        attempt()

    def _call(self, label: str, case: Any, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = case.call(base_url=f"http://{self.http}", headers=headers, timeout=PATIENCE_SECONDS)
        self.answers += 1
        if answer.status_code < 300:
            self.successes.add(label)
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as refusal:
            why = "; ".join(str(each) for each in refusal.exceptions)
            self.found.append(f"{label}: {answer.status_code}: {why}: {answer.text[:300]}")


def known(rest: Rest) -> Mapping[str, str]:
    """Makes one of everything, and waits for the run."""
    workflow = rest.post("/workflows", {"name": "w", "dag": DAG})
    (version,) = rest.get(f"/workflows/{workflow['id']}/versions")["versions"]
    run_id = rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]
    for _ in rest.events(run_id):
        pass
    assert rest.get(f"/runs/{run_id}")["state"] == "SUCCEEDED"
    rest.call("PUT", "/secrets/SECRET", {"value": "of the tests"}, {})
    timing = {"cron": "0 0 1 1 *", "startTime": "2090-01-01T00:00:00Z"}
    schedule = rest.post("/schedules", {"name": "s", "workflowId": workflow["id"], **timing})
    other = rest.post("/auth/register", {"email": "other@example.com", "password": PASSWORD, "name": "Other"})
    return {
        "workflowId": workflow["id"],
        "versionId": version["id"],
        "runId": run_id,
        "nodeId": "a",
        "name": "note.txt",
        "agentId": rest.get("/agents")["agents"][0]["id"],
        "pluginId": rest.get("/plugins")["plugins"][0]["id"],
        "scheduleId": schedule["id"],
        "secretId": "SECRET",
        "plugin": "HTTP_REQUEST",
        "userId": other["id"],
    }


def operations(http: str) -> Iterator[Operation]:
    """Every operation of the document, those that delete last."""
    schema: Any = schemathesis.openapi.from_dict(httpx.get(f"http://{http}/openapi.json", trust_env=False).json())
    every = [result.ok() for result in schema.get_all_operations()]
    yield from sorted(every, key=_deletes)


def _deletes(operation: Operation) -> bool:
    return operation.method.upper() == "DELETE"


def try_everything(http: str) -> Trial:
    """Tries all operations as an admin and as nobody."""
    rest = Rest(http)
    rest.token = rest.post("/auth/login", {"email": EMAIL, "password": PASSWORD})["accessToken"]
    trial = Trial(http, known(rest))
    for operation in operations(http):
        token = "" if operation.path in OWN else rest.token
        for mode, examples in EXAMPLES.items():
            trial.run(operation, mode, token, examples)
        is_public = operation.definition.raw["security"] == []
        nobody = Trial(http, {})
        nobody.run(operation, GenerationMode.POSITIVE, "", EXAMPLES_OF_NOBODY)
        trial.found += nobody.found
        trial.found += [] if is_public else [f"{label}: open to all" for label in nobody.successes]
    assert rest.get("/auth/me")["email"] == EMAIL
    return trial


def test_no_answer_is_a_failure_or_not_documented(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_SECRETS_KEY=SECRETS_KEY) as installation:
            trial = await asyncio.to_thread(try_everything, installation.http)
            assert trial.found == []
            assert trial.answers > 300
            assert len(trial.successes) > 30, trial.successes

    asyncio.run(scenario())
