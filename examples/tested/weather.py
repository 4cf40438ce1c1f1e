"""A FastAPI application with tests, which `coverage run -m pytest` runs in this folder."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, WebSocket

app = FastAPI(title="Weather")


def thermometer() -> Callable[[str], float]:
    """Somebody else's service, which tests have no use for."""
    raise HTTPException(503, "the weather service does not answer")


Measure = Annotated[Callable[[str], float], Depends(thermometer)]


@app.get("/weather/{place}")
def now(place: str, measure: Measure) -> dict[str, float]:
    try:
        return {"celsius": measure(place)}
    except LookupError:
        raise HTTPException(404, f"nobody measures in {place}") from None


@app.websocket("/weather/{place}/live")
async def live(socket: WebSocket, place: str, measure: Measure) -> None:
    await socket.accept()
    for _ in range(3):
        await socket.send_json(measure(place))
    await socket.close()
