"""A WebSocket in plain ASGI that sends back what it gets: `aiovoy echo:app --app-dir examples`.

`python -m websockets ws://127.0.0.1:8000` talks to it, where the package websockets is installed.
"""


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
