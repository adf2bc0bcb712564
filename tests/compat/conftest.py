"""The last release, unpacked once for all tests of a process."""

import last_release
import pytest
from last_release import Release


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return last_release.unpack(tmp_path_factory.mktemp("last-release"))
