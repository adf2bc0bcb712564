"""Prints what an audit of the installation finds: `python -m towline_controlplane.audit`.

Exit code 0 when all invariants hold, 1 when some do not, 2 for wrong usage, 6 when they could not be checked.
"""

import argparse
import asyncio
import json
import sys

from towline_controlplane.audit.auditor import Report, audit_database
from towline_controlplane.settings import DatabaseSettings
from towline_controlplane.store.database import Database
from towline_controlplane.telemetry import configure_logging

_MOST = 1_000


async def audit(settings: DatabaseSettings) -> Report:
    """Audits the database beside whatever works on it."""
    database = Database.open(settings.database, read_only=True)
    try:
        return await audit_database(database, _MOST)
    finally:
        await database.close()


def as_json(report: Report) -> str:
    """Returns the report for programs."""
    breaches = [
        {
            "invariant": breach.invariant,
            "runId": breach.run_id,
            "nodeId": breach.node_id,
            "what": breach.what,
            "expected": str(breach.expected),
            "found": str(breach.found),
        }
        for breach in report.breaches
    ]
    return json.dumps({"runs": report.runs, "complete": report.complete, "breaches": breaches}, indent=2)


def as_text(report: Report) -> str:
    """Returns the report for people: a line for each breach, then the sum."""
    runs, breaches = _counted(report.runs, "run", "runs"), _counted(len(report.breaches), "breach", "breaches")
    more = "" if report.complete else "; there may be more"
    ending = f"{breaches} in {runs}{more}" if report.breaches else f"{runs}: all invariants hold"
    return "\n".join([*map(str, report.breaches), ending])


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _settings() -> DatabaseSettings:
    return DatabaseSettings()  # pyright: ignore[reportCallIssue] - every field comes from the environment


def main() -> int:
    """Runs the audit; returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="towline admin audit", description="Checks the invariants of the database.")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    output = parser.parse_args().output
    try:
        report = asyncio.run(audit(_settings()))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no breach that was found
        reason = str(error).partition("\n")[0]
        print(f"error: cannot audit the database: {reason}", file=sys.stderr)  # noqa: T201
        return 6
    print(as_json(report) if output == "json" else as_text(report))  # noqa: T201
    return 1 if report.breaches else 0


if __name__ == "__main__":
    configure_logging("ERROR")  # on standard error, and no more than what is said here
    sys.exit(main())
