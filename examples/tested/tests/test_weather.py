import httpx
from websockets.sync.client import connect


def test_weather(url: str, measured: dict[str, float]) -> None:
    assert httpx.get(f"{url}/weather/Bergen").json() == {"celsius": 8.5}
    measured["Bergen"] = 9.0
    assert httpx.get(f"{url}/weather/Bergen").json() == {"celsius": 9.0}


def test_place_without_weather(url: str) -> None:
    assert httpx.get(f"{url}/weather/Atlantis").status_code == 404


def test_live_weather(url: str) -> None:
    with connect(f"{url}/weather/Bergen/live".replace("http", "ws", 1)) as socket:
        assert list(socket) == ["8.5", "8.5", "8.5"]
