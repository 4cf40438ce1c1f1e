"""A stand-in for Envoy with the bridge, for tests of the launcher: the sockets that it is given, the control channel.

FAKE_ENVOY says how it behaves (`mute 2`: the second worker is mute, others serve), FAKE_ENVOY_VERSION which Envoy it
is, and it writes what it sees to the file FAKE_ENVOY_NOTES.
"""

import json
import os
import re
import signal
import socket
import sys
import time


def main() -> int:
    if sys.argv[1:] == ["--hot-restart-version"]:
        print(hot_restart_version(), file=sys.stderr)
        return 0
    if sys.argv[1:] == ["--version"]:
        print(f"envoy  version: 9e55/{os.environ.get('FAKE_ENVOY_VERSION', '1.40.99')}/Clean/RELEASE/BoringSSL")
        return 0
    behaviour, _, worker = os.environ.get("FAKE_ENVOY", "serve").partition(" ")
    if worker not in ("", os.environ["AIOVOY_WORKER"]):
        behaviour = "serve"
    with open(argument("-c")) as file:
        bootstrap = file.read()
    if behaviour == "exit":  # a configuration that Envoy refuses
        print("bad configuration", file=sys.stderr)
        return 7
    if behaviour == "hang":  # before the bridge is loaded
        note("hanging")
        time.sleep(60)
    control = connect()
    if behaviour == "fail":
        event(control, event="failed", message="no module named main")
        return 3
    listener = take_socket(bootstrap)
    if behaviour == "slow":  # an application that takes its time to start
        note("slow")
        note(wait_for_command(control))
        return 0
    event(control, event="started")
    if (command := wait_for_command(control)) != "listen":
        note(command)
        return 0
    listener.listen()
    if behaviour == "mute":  # as long as it does not say that it is ready
        note("listening")
        note(wait_for_command(control))
        return 0
    event(control, event="ready", python="3.11.0", workers=1, loop="uvloop")
    command = wait_for_command(control)
    note(command)
    if behaviour == "drain":  # requests in flight that do not end
        note(wait_for_command(control))
    if behaviour == "deaf":
        note(wait_for_command(control))
        time.sleep(60)
    listener.close()
    return 0


def argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def hot_restart_version() -> str:
    """That of Envoy 1.40 on this machine."""
    return f"11.{24 + 2 * {'aarch64': 48}.get(os.uname().machine, 40)}"


def take_socket(bootstrap: str) -> socket.socket:
    """Asks the hot restart parent for the socket that the bootstrap names, as Envoy does."""
    host = re.search(r'address: "(.+)"', bootstrap)
    port = re.search(r"port_value: (\d+)", bootstrap)
    assert host is not None
    assert port is not None
    path, base = argument("--socket-path"), int(argument("--base-id")) * 10
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as child:
        child.bind(f"{path}_child_{base + 1}")
        address = f"tcp://{host[1]}:{port[1]}".encode()
        # HotRestartMessage{request{pass_listen_socket{address}}}; all lengths are below 128.
        message = field(1, field(1, field(1, address)))
        child.sendto(len(message).to_bytes(8, "big") + message, f"{path}_parent_{base}")
        _, [descriptor], _, _ = socket.recv_fds(child, 4096, 1)
    return socket.socket(fileno=descriptor)


def field(number: int, value: bytes) -> bytes:
    """In the wire format of protobuf."""
    return bytes([number << 3 | 2, len(value)]) + value


def connect() -> socket.socket:
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["AIOVOY_CONTROL"])
    return control


def event(control: socket.socket, **fields: object) -> None:
    control.sendall(json.dumps(fields).encode() + b"\n")


def wait_for_command(control: socket.socket) -> str:
    """The next one that is no question after its health."""
    line = b"ping\n"
    while line == b"ping\n":
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
