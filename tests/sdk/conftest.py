from collections.abc import Iterator

import pytest
from cli_fakes import FakeControlPlane, serving


@pytest.fixture
def control_plane() -> Iterator[FakeControlPlane]:
    with serving() as fake:
        yield fake
