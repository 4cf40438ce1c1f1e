"""A stand-in for Envoy with the bridge: the control channel and nothing else, for tests of the launcher.

FAKE_ENVOY says how it behaves, and it writes what it sees to the file FAKE_ENVOY_NOTES.
"""

import json
import os
import re
import signal
import socket
import sys
import time


def main() -> int:
    behaviour = os.environ.get("FAKE_ENVOY", "serve")
    with open(sys.argv[sys.argv.index("-c") + 1]) as file:
        bootstrap = file.read()
    if behaviour == "exit":  # a configuration that Envoy refuses
        print("bad configuration", file=sys.stderr)
        return 7
    if behaviour == "hang":  # before the bridge is loaded
        note("hanging")
        time.sleep(60)
    if behaviour == "fail":
        control = connect()
        event(control, event="failed", message="no module named main")
        return 3
    listener = listen(bootstrap)
    control = connect()
    if behaviour == "slow":  # an application that takes its time to start
        note("slow")
        note(wait_for_command(control))
        return 0
    event(control, event="ready", python="3.11.0", workers=1, loop="uvloop")
    if behaviour == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    command = wait_for_command(control)
    note(command)
    if behaviour == "drain":  # requests in flight that do not end
        note(wait_for_command(control))
    if behaviour == "deaf":
        note(wait_for_command(control))
        time.sleep(60)
    listener.close()
    return 0


def listen(bootstrap: str) -> socket.socket:
    """Listens where the bootstrap says, as Envoy does."""
    address = re.search(r'address: "(.+)"', bootstrap)
    port = re.search(r"port_value: (\d+)", bootstrap)
    assert address is not None
    assert port is not None
    listener = socket.socket(socket.AF_INET6 if ":" in address[1] else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address[1], int(port[1])))
    listener.listen()
    return listener


def connect() -> socket.socket:
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["AIOVOY_CONTROL"])
    return control


def event(control: socket.socket, **fields: object) -> None:
    control.sendall(json.dumps(fields).encode() + b"\n")


def wait_for_command(control: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = control.recv(1)
        if not byte:
            return "end of channel"
        line += byte
    return line.decode().strip()


def note(text: str) -> None:
    with open(os.environ["FAKE_ENVOY_NOTES"], "a") as notes:
        print(text, file=notes, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches Envoy too; the bridge hears it from the launcher
    sys.exit(main())
