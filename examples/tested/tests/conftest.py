from collections.abc import Iterator

import pytest
from weather import app, thermometer

from aiovoy.pytest_plugin import StartServer


@pytest.fixture(scope="session")
def url(aiovoy_session_server: StartServer) -> str:
    """One server for all tests. It serves `app` as it is here, whatever is replaced in it."""
    return aiovoy_session_server(app).url


@pytest.fixture(autouse=True)
def measured() -> Iterator[dict[str, float]]:
    """What the thermometer shows, by place."""
    temperatures = {"Bergen": 8.5}
    app.dependency_overrides[thermometer] = lambda: temperatures.__getitem__
    yield temperatures
    app.dependency_overrides.clear()
