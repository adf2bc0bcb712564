"""What enrollment leaves behind is what later starts find, whoever reads it."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_agent import command_line, settings_file
from towline_agent.settings_file import BadSettingsFile

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF)).filter(str.isprintable)


@given(values=st.dictionaries(st.sampled_from(["TOWLINE_SERVER", "TOWLINE_AGENT_LABELS", "X1"]), PRINTABLE))
def test_what_is_saved_is_loaded(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("state")
    settings_file.save(folder, values)
    assert settings_file.load(folder) == values
    assert (folder / "agent.env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", ['a"b', "a\\b", "k=v,k2=v 2", "it's", "$HOME `id`", "# no comment", ""])
def test_a_shell_reads_the_same_as_long_as_it_expands_nothing(tmp_path: Path, value: str) -> None:
    settings_file.save(tmp_path, {"X": value.replace("$", "S").replace("`", "'")})
    script = f'. {tmp_path}/agent.env; printf %s "$X"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == settings_file.load(tmp_path)["X"]


def test_a_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    for line in ("no setting", 'X="open', "X=a b", "lower=1"):
        (tmp_path / "agent.env").write_text(f"# comment\n\n{line}\n")
        with pytest.raises(BadSettingsFile, match="line 3"):
            settings_file.load(tmp_path)


def test_a_value_that_would_need_a_second_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettingsFile, match="X"):
        settings_file.save(tmp_path, {"X": "a\nTOWLINE_SERVER=evil:1"})


def test_options_come_before_the_environment_and_the_file_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.save(
        tmp_path, {"TOWLINE_SERVER": "file:1", "TOWLINE_AGENT_NAME": "of-file", "TOWLINE_AGENT_SLOTS": "3"}
    )
    monkeypatch.setenv("TOWLINE_AGENT_DIR", str(tmp_path))
    monkeypatch.setenv("TOWLINE_AGENT_NAME", "of-environment")
    monkeypatch.setenv("TOWLINE_SERVER", "environment:1")
    settings = command_line.settings({"TOWLINE_SERVER": "option:1"})
    assert (settings.server, settings.name, settings.slots) == ("option:1", "of-environment", 3)
