"""The operator's settings: the limits of SPEC.md, section 15, and where the server listens and keeps its data.

From weakest to strongest: defaults, the file given by --config, variables ROOMWIRE_*, options of the command line.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from protocol.registry import LIMITS
from protocol.server import ServerTimes


class ConfigError(Exception):
    """A setting cannot be used. `str()` is one line: its name, what was expected, what was found."""


def _limit(name: str) -> int:
    return field(default=LIMITS[name].default)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Limits have their names of SPEC.md, section 15."""

    host: str = "127.0.0.1"
    port: int = 7117
    data: str = ""  # "": the user's data directory
    memory: bool = False
    accounts: str = ""  # "": accounts.sqlite3 in the data directory, if it exists
    anonymous: bool = True  # clients without an account are let in
    tls_cert: str = ""  # "": clear text
    tls_key: str = ""  # "": in the file of the certificate
    insecure: bool = False  # clear text also for other hosts
    metrics_host: str = "127.0.0.1"
    metrics_port: int = -1  # -1: no metrics
    log_format: str = "text"
    log_level: str = "info"
    server_id: int = 0  # 0: random
    create_rooms: bool = True
    local_limits: bool = False  # limits for each address apply to this host's addresses too
    max_connections: int = 10_000
    max_members: int = 100_000  # a room
    max_open_rooms: int = 100_000
    ids_per_room: int = 1_000_000
    retention_octets: int = 64 * 2**20  # a room

    max_body: int = _limit("max_body")
    window: int = _limit("window")
    max_rooms: int = _limit("max_rooms")
    heartbeat_ms: int = _limit("heartbeat_ms")
    dedupe_ms: int = _limit("dedupe_ms")
    preface_ms: int = _limit("preface_ms")
    handshake_ms: int = _limit("handshake_ms")
    frame_ms: int = _limit("frame_ms")
    stall_ms: int = _limit("stall_ms")
    linger_ms: int = _limit("linger_ms")
    drain_ms: int = _limit("drain_ms")
    jitter_ms: int = _limit("jitter_ms")
    replay_messages: int = _limit("replay_messages")
    history_messages: int = _limit("history_messages")
    history_octets: int = _limit("history_octets")
    retention_messages: int = _limit("retention_messages")
    retention_ms: int = _limit("retention_ms")
    publish_rate: int = _limit("publish_rate")
    publish_burst: int = _limit("publish_burst")
    join_rate: int = _limit("join_rate")
    join_burst: int = _limit("join_burst")
    history_rate: int = _limit("history_rate")
    history_burst: int = _limit("history_burst")
    room_rate: int = _limit("room_rate")
    quiet_members: int = _limit("quiet_members")
    auth_rate: int = _limit("auth_rate")
    address_connections: int = _limit("address_connections")
    account_connections: int = _limit("account_connections")

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name, limit.default)
            if not limit.low <= value <= limit.high:
                raise ConfigError(f"{name}: expected {limit.low} to {limit.high} {limit.unit}, found {value}")
        for name, low, high in (
            ("port", 0, 65535),
            ("metrics_port", -1, 65535),
            ("server_id", 0, 2**64 - 1),
            *((n, 1, 2**31 - 1) for n in _CAPS),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: expected {low} to {high}, found {value}")
        for name in ("host", "metrics_host"):
            if not getattr(self, name):  # "" would mean all addresses of this host
                raise ConfigError(f"{name}: expected a name or an address, found ''")
        for name in ("host", "metrics_host", "data", "accounts", "tls_cert", "tls_key"):
            if "\0" in getattr(self, name):
                raise ConfigError(f"{name}: expected text without U+0000, found {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: expected one of {', '.join(choices)}, found {getattr(self, name)!r}")

    @property
    def times(self) -> ServerTimes:
        """The time-outs of one connection, in seconds."""
        return ServerTimes(
            self.preface_ms / 1000, self.handshake_ms / 1000, self.frame_ms / 1000, self.linger_ms / 1000
        )


_CAPS = ("max_connections", "max_members", "max_open_rooms", "ids_per_room", "retention_octets")
_CHOICES = {"log_format": ("text", "json"), "log_level": ("debug", "info", "warning", "error")}


_OF_A_SERVICE = re.compile("(tcp|udp|sctp)://")
"""Kubernetes sets ROOMWIRE_PORT=tcp://10.96.12.7:7117 in every container beside a Service called roomwire."""


def load(options: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> Config:
    """The settings from all sources. Raises ConfigError."""
    values: dict[str, object] = {}
    if file is not None:
        values.update(_from_file(file))
    known = {f.name: type(f.default) for f in fields(Config)}
    for name in known:
        text = environ.get(f"ROOMWIRE_{name.upper()}")
        if text is not None and not (name.endswith("port") and _OF_A_SERVICE.match(text)):
            values[name] = _parse(name, text, known[name])
    values.update({name: value for name, value in options.items() if value is not None})
    return Config(**values)  # type: ignore[arg-type]


def _from_file(file: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    known = {f.name: type(f.default) for f in fields(Config)}
    for name, value in table.items():
        if name not in known:
            raise ConfigError(f"{file}: unknown setting {name!r}; known are {', '.join(sorted(known))}")
        if type(value) is not known[name]:
            raise ConfigError(f"{file}: {name}: expected {known[name].__name__}, found {value!r}")
    return table


def _parse(name: str, text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise ConfigError(f"ROOMWIRE_{name.upper()}: expected true or false, found {text!r}")
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"ROOMWIRE_{name.upper()}: expected a whole number, found {text!r}") from None
    return text


def data_directory(config: Config) -> Path:
    """The directory that holds the rooms. Raises ConfigError if none is set and there is no home."""
    return Path(config.data) if config.data else default_data_directory()


def default_data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """$XDG_DATA_HOME/roomwire, by default ~/.local/share/roomwire. Raises ConfigError if there is no home."""
    base = environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share") / "roomwire"
    except RuntimeError:
        raise ConfigError("data: expected a directory, for this user has no home, found none") from None
