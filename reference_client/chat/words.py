"""The words of a command line: which command they are for, which are options, and which are its room and text.

argparse would take a message that looks like an option for one, and so it would vanish. Here a message is sent, or
refused with the way to send it. After `--` no word is an option.
"""

import ipaddress
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

COMMANDS = ("chat", "send", "tail", "stop")

_WITH_VALUE = (
    "--name", "--server", "--host", "--history", "--account", "--password-file", "--ca", "--since", "-W", "-n",
)  # fmt: skip
_HELP = ("-h", "--help")
_SERVER = re.compile(r"\w+://.*|localhost|localhost:\d+|[\w.-]+\.[\w-]+:\d+|[\w.-]+:7117|\[[0-9A-Fa-f:.]+\](:\d+)?")


class WordsError(Exception):
    """The words do not say what to do. `str()` is one line."""


class Words(NamedTuple):
    """The words after the command: options with their values, and places, of which some may stand after `--`."""

    options: list[str]
    places: list[str]
    unprotected: int
    """How many places stand before `--`."""
    doubtful: str
    """If there is one place: the first option after it, or "--", or else ""."""


def with_command(words: Sequence[str]) -> list[str]:
    """The words with the command first. It may follow common options; without one, it is `chat`."""
    rest = list(words)
    if rest and rest[0] in (*_HELP, "--version", "--print-completion"):
        return rest
    index = 0
    while index < len(rest) and rest[index].startswith("-") and rest[index] not in ("-", "--"):
        index += 2 if rest[index] in _WITH_VALUE else 1
    if index < len(rest) and rest[index] in COMMANDS:
        return [rest.pop(index), *rest]
    return ["chat", *rest]


def parted(words: Sequence[str]) -> Words:
    """Part the words after a command. A word with a space, or a negative number, is no option."""
    options: list[str] = []
    places: list[str] = []
    doubtful = ""
    index = 0
    while index < len(words) and (word := words[index]) != "--":
        index += 1
        if word == "-" or not word.startswith("-") or re.search(r"\s", word) or re.fullmatch(r"-[\d.]+", word):
            places.append(word)
            continue
        doubtful = doubtful or (word if len(places) == 1 else "")
        options.append(word)
        if word in _WITH_VALUE and index < len(words):
            options.append(words[index])
            index += 1
    alone = len(places) == 1 and index >= len(words) - 1  # perhaps with a "--" after which there is nothing
    doubtful = (doubtful or "".join(words[index:])) if alone else ""
    return Words(options, [*places, *words[index + 1 :]], len(places), doubtful)


def room_and_text(command: str, words: Words) -> tuple[str | None, str | None]:
    """ROOM and TEXT of `send` or `tail`; a TEXT of "-" before `--` is None. Raises WordsError."""
    most = 2 if command == "send" else 1
    places, name = words.places, f"roomwire-chat {command}"
    if any(option in _HELP for option in words.options) and not words.doubtful:
        return None, None
    if len(places) > most:
        raise WordsError(_too_many(command, name, places, most))
    if words.doubtful and command == "send":
        found, room = shlex.quote(words.doubtful), shlex.quote(places[0])
        raise WordsError(
            f"expected a message after ROOM, found the option {found}: to send it as a message, write {name} {room} -- "
            f"{found}; to send the lines of the standard input, give - as the message"
        )
    if words.unprotected and _is_server(places[0]):
        rest = shlex.join(places[1:]) or ("ROOM TEXT" if command == "send" else "ROOM")
        server = shlex.quote(places[0])
        raise WordsError(
            f"expected ROOM, found what looks like a server: {name} --server {server} {rest}; if it is a room, write "
            f"{name} -- {shlex.join(places)}"
        )
    text = places[1] if len(places) > 1 else None
    return (places[0] if places else None), (None if text == "-" and words.unprotected > 1 else text)


def _is_server(word: str) -> bool:
    """Whether a word can hardly be a room: it has a scheme or a port, or is the address of a machine."""
    if _SERVER.fullmatch(word):
        return True
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def _too_many(command: str, name: str, places: list[str], most: int) -> str:
    takes = "ROOM and TEXT" if most == 2 else "ROOM"
    server = f"{name} --server {shlex.join(places[: most + 1])}"
    if len(places) == most + 1 and (_is_server(places[0]) or "." in places[0] or command == "tail"):
        advice = f"the server is an option: {server}"
    else:
        text = shlex.join([places[0], " ".join(places[1:])])
        advice = f"put a message of several words in quotes: {name} {text}; the server is an option: {server}"
    return f"expected {takes}, found {len(places)} words: {advice}"
