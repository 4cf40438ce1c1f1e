"""A small FastAPI application, a notebook: `aiovoy fastapi_app:app --app-dir examples`, then open /docs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Annotated, TypedDict

from fastapi import BackgroundTasks, Depends, FastAPI, File, HTTPException, Request
from pydantic import BaseModel, Field


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=1000)


class Notebook:
    """The notes, as long as the process lives."""

    def __init__(self) -> None:
        self.notes: dict[int, Note] = {}
        self.log: list[str] = []
        self._numbers = count(1)

    def add(self, note: Note) -> int:
        number = next(self._numbers)
        self.notes[number] = note
        return number


class State(TypedDict):
    notebook: Notebook


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Here an application opens what it needs, such as a pool of database connections, and closes it at the end."""
    yield {"notebook": Notebook()}


app = FastAPI(title="Notebook", lifespan=lifespan)


def notebook_of(request: Request) -> Notebook:
    notebook: Notebook = request.state.notebook
    return notebook


InNotebook = Annotated[Notebook, Depends(notebook_of)]


@app.post("/notes", status_code=201)
async def add(note: Note, notebook: InNotebook, background: BackgroundTasks) -> dict[str, int]:
    number = notebook.add(note)
    background.add_task(notebook.log.append, f"added {number}")
    return {"number": number}


@app.get("/notes/{number}")
async def read(number: int, notebook: InNotebook) -> Note:
    if number not in notebook.notes:
        raise HTTPException(404, f"there is no note {number}")
    return notebook.notes[number]


@app.post("/notes/file", status_code=201)
def add_file(file: Annotated[bytes, File()], notebook: InNotebook) -> dict[str, int]:
    """A plain function: FastAPI runs it on a thread, so it may block."""
    return {"number": notebook.add(Note(text=file.decode(errors="replace")))}


@app.get("/log")
async def log(notebook: InNotebook) -> list[str]:
    """What was done in the background, after the answers."""
    return notebook.log
