"""Your client as `roomwire-check client` drives it: commands and reports are lines of JSON.

    roomwire-check client --exec 'python3 client_adapter.py {host} {port}'

It connects, sends HELLO, answers PING and GOAWAY, and joins rooms, so that you see a verdict. Replace `Connection` with
your client: obey `connect`, `join`, `publish`, `leave`, `history`, `quit`, and report `connected`,
`disconnected`, `closed`, `joined`, `left`, `evicted`, `message`, `presence`, `gap`, `published`, `history`, `error`.
Octets are hexadecimal, integers of 64 bits are decimal strings.
"""

import contextlib
import json
import socket
import sys
import threading
from typing import Any

FEATURES: list[str] = []  # of: history, ordered, presence, reconnect, rejoin, repeat - once your client has them
ERROR, WELCOME, PING, PONG, GOAWAY, HELLO, JOIN, JOINED, MESSAGE = 4, 2, 6, 7, 8, 1, 0x10, 0x11, 0x22


def report(**values: Any) -> None:
    """Writes a report as one line, without members that are None."""
    print(json.dumps({name: value for name, value in values.items() if value is not None}), flush=True)


def text8(text: str) -> bytes:
    """A name on the wire."""
    octets = text.encode()
    return bytes([len(octets)]) + octets


class Connection:
    """A connection to a server, read in a thread of its own."""

    def __init__(self, host: str, port: int, name: str, id: Any) -> None:
        self.socket = socket.create_connection((host, port))
        self.requests: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.rooms: dict[int, tuple[str, int]] = {}
        self.last = 0
        self.socket.sendall(bytes.fromhex("F5525750 0101 0000"))
        if not self.read(8).startswith(bytes.fromhex("F5525750 01")):
            raise ConnectionError("no version in common")
        self.ask(HELLO, text8(name) + text8("ANONYMOUS") + bytes(2), id, {})
        threading.Thread(target=self.run, daemon=True).start()

    def read(self, count: int) -> bytes:
        """Reads exactly `count` octets. Raises ConnectionError at the end of the stream."""
        octets = b""
        while len(octets) < count:
            more = self.socket.recv(count - len(octets))
            if not more:
                raise ConnectionError("the end of the stream")
            octets += more
        return octets

    def send(self, kind: int, body: bytes, request: int = 0, room: int = 0) -> None:
        """Writes a frame."""
        header = len(body).to_bytes(4, "big") + kind.to_bytes(2, "big") + bytes(2)
        self.socket.sendall(header + request.to_bytes(4, "big") + room.to_bytes(4, "big") + body)

    def ask(self, kind: int, body: bytes, id: Any, command: dict[str, Any], room: int = 0) -> None:
        """Sends a request and remembers the command that its reply belongs to."""
        self.last += 1
        self.requests[self.last] = (id, command)
        self.send(kind, body, self.last, room)

    def run(self) -> None:
        """Handles frames until the connection ends."""
        code, text = None, "the end of the stream"
        try:
            while True:
                header = self.read(16)
                parts = ((0, 4), (4, 6), (6, 8), (8, 12), (12, 16))
                length, kind, flags, request, room = (int.from_bytes(header[at:end], "big") for at, end in parts)
                body = self.read(length)
                if kind == GOAWAY:
                    code, text = int.from_bytes(body[:2], "big"), body[12:].decode(errors="replace")
                    if code != 503:  # DRAINING: there may be more
                        self.send(GOAWAY, bytes(12))
                        break
                self.take(kind, flags, request, room, body)
        except OSError as error:
            text = str(error)
        with contextlib.suppress(OSError):
            self.socket.close()
        report(event="disconnected", code=code, text=text, again=False)
        report(event="closed", code=code, text=text)

    def take(self, kind: int, flags: int, request: int, room: int, body: bytes) -> None:
        """Handles one frame."""
        id, command = self.requests.pop(request, (None, {}))
        if kind == PING:
            self.send(PONG, body[:8])
        elif kind == WELCOME:
            name = body[9 : 9 + body[8]].decode()
            report(event="connected", id=id, name=name, member=str(int.from_bytes(body[:8], "big")))
        elif kind == JOINED:
            epoch, head, start, oldest = (int.from_bytes(body[at : at + 8], "big") for at in range(0, 32, 8))
            name = body[37 : 37 + body[36]].decode()
            self.rooms[room] = (command["room"], epoch)
            numbers = {"epoch": str(epoch), "head": str(head), "start": str(start), "oldest": str(oldest)}
            members = int.from_bytes(body[32:36], "big")
            report(event="joined", id=id, room=command["room"], name=name, members=members, quiet=False, **numbers)
        elif kind == ERROR:
            code, text = int.from_bytes(body[:2], "big"), body[8:].decode(errors="replace")
            report(event="error", id=id, room=command.get("room"), code=code, text=text)
        elif kind == MESSAGE and not request and room in self.rooms:
            seq, time_ms, sender = (int.from_bytes(body[at : at + 8], "big") for at in (0, 8, 16))
            ctype, end = body[40], 42 + body[41]
            size = int.from_bytes(body[end : end + 4], "big")
            report(
                event="message",
                room=self.rooms[room][0],
                epoch=str(self.rooms[room][1]),
                seq=str(seq),
                time_ms=str(time_ms),
                sender=str(sender),
                name=body[42:end].decode(),
                verified=bool(flags & 2),
                ctype=ctype,
                payload=body[end + 4 : end + 4 + size].hex(),
            )


def main() -> None:
    """Obeys commands until `quit` or the end of standard input."""
    host, port = sys.argv[1], int(sys.argv[2])
    report(ready=True, contract=1, name="my client", version="0", features=FEATURES)
    connection: Connection | None = None
    for line in sys.stdin:
        command = json.loads(line)
        id, op = command.get("id"), command["op"]
        if op == "quit":
            break
        try:
            if op == "connect":
                connection = Connection(host, port, command["name"], id)
            elif op == "join" and connection:
                cursor = (int(command.get("epoch", 0)), int(command.get("since", command.get("newest", 0))))
                body = text8(command["room"]) + b"".join(number.to_bytes(8, "big") for number in cursor)
                connection.ask(JOIN, body, id, command)
            else:
                report(id=id, unsupported=op)
        except OSError as error:
            report(event="error", id=id, text=str(error))
            report(event="closed", text=str(error))


if __name__ == "__main__":
    main()
