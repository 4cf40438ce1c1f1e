"""The FastAPI application of the benchmark: a JSON route as one would write it."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    id: int
    name: str
    tags: list[str]
    price: float


@app.get("/items/{item_id}")
async def read_item(item_id: int, name: str) -> Item:
    return Item(id=item_id, name=name, tags=["blue", "large"], price=12.5)
