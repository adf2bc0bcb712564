from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fakes import FakeControlPlane, Terminal, serving

from towline_sdk import scaffold


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    with serving() as fake:
        yield fake


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def towline(
    control_plane: FakeControlPlane,
    config_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:
    monkeypatch.setenv("TOWLINE_SERVER", control_plane.address)
    monkeypatch.setenv("TOWLINE_TOKEN", "token-1")
    monkeypatch.setenv("TOWLINE_CONFIG_DIR", str(config_dir))
    monkeypatch.setenv("TOWLINE_DEBUG", "1")
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new plugin in Python, and a cache of its own to run it in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scaffold.create(tmp_path / "greeter", "greeter", "python")
    return tmp_path / "greeter"
