"""The shape of the code: small files, SQL in one place, transitions of the docs as in the tables."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
SQL = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", re.DOTALL)
SQL_HOMES = ("controlplane/towline_controlplane/store/", "migrations/", "tests/", "bench/")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


PYTHON = tracked("*.py")


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_fits_on_a_few_screens(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_sql_text_stays_in_the_store() -> None:
    strays = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PYTHON
        if not str(path.relative_to(ROOT)).startswith(SQL_HOMES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]
    assert strays == []


def test_the_repository_names_no_machine() -> None:
    forbidden = re.compile(r"/root/|/work/|pypi\.org|files\.pythonhosted|registry\.npmjs|proxy\.golang")
    strays = [
        str(path.relative_to(ROOT))
        for path in tracked("*")
        if path.is_file() and path != Path(__file__) and forbidden.search(path.read_text(errors="replace"))
    ]
    assert strays == []
