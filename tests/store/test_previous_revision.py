"""A release runs beside the next one while replicas are replaced: its store must go on working on the new schema.

What worked before is taken from the history of the repository: the store and its suite as they were when the newest
migration was not yet there, run against the schema of today.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = Path("migrations/towline_migrations/versions")
# What these check is the schema itself, which has changed, how queries are planned on it, or the file below it.
NOT_ABOUT_BEHAVIOUR = (
    *("test_migrations.py", "test_postgres_migrations.py", "test_previous_revision.py", "test_tables.py"),
    *("test_plans.py", "test_sqlite.py", "test_database.py"),
)


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the history of the repository is not here: {done.stderr.decode()[:200]}")
    return done.stdout


def last_commit_without_newest_migration() -> str:
    newest = max((ROOT / VERSIONS).glob("[0-9]*.py")).name
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(VERSIONS / newest)).decode().split()
    if not added:
        pytest.skip(f"the history of the repository does not reach back to {newest}")
    return git("rev-parse", f"{added[-1]}^").decode().strip()


@pytest.mark.timeout(600)
def test_the_store_of_the_revision_before_works_on_the_schema_of_today(tmp_path: Path) -> None:
    archive = git("archive", last_commit_without_newest_migration(), "controlplane", "tests", "pyproject.toml")
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True)
    ignored = [f"--ignore=tests/store/{name}" for name in NOT_ABOUT_BEHAVIOUR]
    suite = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/store", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *ignored],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "controlplane"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert suite.returncode == 0, suite.stdout[-4000:]
