"""Documents that are derived from code say what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("path", sorted(generate.documents()), ids=lambda path: path.name)
def test_derived_document_is_up_to_date(path: Path) -> None:
    assert path.read_text() == generate.documents()[path], "run make docs"


def test_env_example_names_every_variable_without_a_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = {line.lstrip("# ").partition("=")[0] for line in lines if "=" in line}
    variables = {
        str(field.validation_alias or field.alias)
        for module in generate.PROCESSES.values()
        for field in importlib.import_module(module).Settings.model_fields.values()
    }
    assert variables <= named


def test_every_test_that_a_page_names_is_there() -> None:
    named = {name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"`(test_\w+)`", page.read_text())}
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE)) == set()
