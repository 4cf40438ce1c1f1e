"""Runs the cases of the Autobahn test suite, as the package kosoku has them, against examples/echo.py.

`make autobahn` runs all of them, `make autobahn ARGS='1.* 12.1.3'` some. What the suite calls non-strict or
informational passes, as it does there. Over HTTP/1.1 alone: the suite speaks nothing else.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult
from kosoku.cases import CASES

from py_tests.harness.folders import EXAMPLES
from py_tests.harness.serving import Server, serve

AT_A_TIME = 2


def main() -> int:
    for number, case in CASES.items():
        if number.startswith(("12.", "13.")):
            case.onMessage = with_bytes(case.onMessage)  # type: ignore[attr-defined]
    # To these cases a ping is the end of all messages, and some take longer than the time between two pings.
    with serve("echo:app", app_dir=EXAMPLES, ws_ping_interval=0, access_log=False) as server:
        results = asyncio.run(run(server, sys.argv[1:]))
        print(server.log, end="")
    for result in results:
        if not result.passed:
            print(f"{result.case_id}: {verdict(result)}: {result.result} {result.result_close}")
    print(*(f"{count} {kind}" for kind, count in Counter(map(verdict, results)).most_common()), sep=", ")
    return 0 if results and all(result.passed for result in results) else 1


async def run(server: Server, cases: list[str]) -> list[CaseResult]:
    try:
        return await run_fuzzingclient(f"ws://127.0.0.1:{server.port}/", cases or None, concurrency=AT_A_TIME)
    except FailureError as error:
        return error.results


def verdict(result: CaseResult) -> str:
    """What the suite says of the messages, and of the end if that was not good."""
    words = dict.fromkeys([result.behavior.value, result.behavior_close.value])
    return " / ".join(word for word in words if word != "OK") or "OK"


def with_bytes(on_message: Callable[[Any, bytes, bool], None]) -> Callable[[Any, bytes | str, bool], None]:
    """These cases compare bytes, but where a server has not compressed a message, kosoku hands them text."""

    def convert(case: Any, message: bytes | str, binary: bool) -> None:
        if isinstance(message, str):
            message = message.encode("latin-1" if binary else "utf-8")
        on_message(case, message, binary)

    return convert


if __name__ == "__main__":
    sys.exit(main())
