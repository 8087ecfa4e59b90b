"""The editor of one input line on a terminal, without I/O: keys in, text and its picture out."""

import codecs
import unicodedata
from dataclasses import dataclass

from reference_client.chat.render import harmless

_MAX_HISTORY = 500
_MAX_LINE = 1 << 16
_ESCAPE = "\x1b"
_NEWLINE = "\n"
_PASTE_BEGINS, _PASTE_ENDS = "200~", "\x1b[201~"

_KEYS = {
    "\x01": "home", "\x02": "left", "\x05": "end", "\x06": "right", "\x08": "rubout", "\x7f": "rubout",
    "\x0b": "kill_end", "\x0e": "down", "\x10": "up", "\x15": "kill_start", "\x17": "kill_word",
}  # fmt: skip
_SEQUENCES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end",
    "1~": "home", "3~": "delete", "4~": "end", "7~": "home", "8~": "end",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entered:
    """The user entered a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The user ended the input, with Ctrl-D in an empty line."""


def cells(character: str) -> int:
    """The number of terminal columns that the character takes."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class LineEditor:
    """A line editor with the usual keys of a shell.

    `text` is the line so far, `cursor` a position in it. Several lines that are pasted become one text, after a
    question: it is entered as a whole, or not at all.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._history: list[str] = []
        self._recalled = 0  # index into the history; its length stands for the new line
        self._draft = ""
        self._escape = ""  # an incomplete escape sequence
        self._paste: list[str] | None = None  # what has arrived of a paste
        self._tail = ""  # its last characters
        self._question: str | None = None  # the text that is entered if the user says yes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, octets: bytes) -> list[Entered | Ended]:
        """Take typed octets; returns what they completed."""
        done: list[Entered | Ended] = []
        for character in self._decoder.decode(octets):
            if self._paste is not None:
                self._pasted(character, self._paste)
            elif self._escape:
                self._in_sequence(character)
            elif self._question is not None and character != _ESCAPE:
                done.extend(self._decided(character, self._question))
            elif character == _ESCAPE:
                self._escape = character
            elif character in "\r\n":
                done.append(self._enter())
            elif character == "\x04" and not self.text:
                done.append(Ended())
            elif character == "\x04":
                self._delete()
            elif character in _KEYS:
                self._do(_KEYS[character])
            elif character >= " " and len(self.text) < _MAX_LINE:
                self.text = self.text[: self.cursor] + character + self.text[self.cursor :]
                self.cursor += 1
        return done

    def _in_sequence(self, character: str) -> None:
        if character == _ESCAPE:
            self._escape = character
            return
        self._escape += character
        introduced = self._escape[1:2] in ("[", "O")
        if len(self._escape) == 2 and introduced:
            return
        if introduced and character in "0123456789;<=>?" and len(self._escape) < 16:
            return
        sequence, self._escape = self._escape[2:], ""
        if introduced and sequence == _PASTE_BEGINS:
            self._paste, self._tail, self._question = [], "", None
        elif introduced and sequence in _SEQUENCES and self._question is None:
            self._do(_SEQUENCES[sequence])

    def _pasted(self, character: str, paste: list[str]) -> None:
        """Take a character of a paste; at its end, put the text into the line, or ask."""
        self._tail = (self._tail + character)[-len(_PASTE_ENDS) :]
        if self._tail != _PASTE_ENDS:
            if len(paste) < _MAX_LINE:
                paste.append(character)
            return
        self._paste = None
        whole = "".join(paste).removesuffix(_PASTE_ENDS[:-1]).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        text = "".join(each for each in whole if each >= " " or each in "\n\t")
        if "\n" in text:
            self._question = self.text[: self.cursor] + text + self.text[self.cursor :]
        else:
            text = text.replace("\t", "    ")
            self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
            self.cursor += len(text)

    def _decided(self, character: str, text: str) -> list[Entered | Ended]:
        """Take the answer to the question: y, or one of the keys that mean no."""
        if character not in "yYnN\x03\x04\x15":
            return []
        self._question = None
        if character not in "yY":
            return []
        # It is a message whatever it begins with: a second / makes it no command.
        self.text = f"/{text}" if text.startswith("/") else text
        return [self._enter()]

    def _enter(self) -> Entered:
        text, self.text, self.cursor = self.text, "", 0
        if text.strip() and self._history[-1:] != [text]:
            self._history.append(text)
            del self._history[:-_MAX_HISTORY]
        self._recalled = len(self._history)
        return Entered(text)

    def _do(self, action: str) -> None:
        match action:
            case "left":
                self.cursor = max(self.cursor - 1, 0)
            case "right":
                self.cursor = min(self.cursor + 1, len(self.text))
            case "home":
                self.cursor = 0
            case "end":
                self.cursor = len(self.text)
            case "rubout" if self.cursor:
                self._cut(self.cursor - 1)
            case "delete":
                self._delete()
            case "kill_start":
                self._cut(0)
            case "kill_word":
                before = self.text[: self.cursor].rstrip()
                self._cut(before.rfind(" ") + 1)
            case "kill_end":
                self.text = self.text[: self.cursor]
            case "up" | "down":
                self._recall(self._recalled + (1 if action == "down" else -1))

    def _cut(self, start: int) -> None:
        self.text = self.text[:start] + self.text[self.cursor :]
        self.cursor = start

    def _delete(self) -> None:
        self.text = self.text[: self.cursor] + self.text[self.cursor + 1 :]

    def _recall(self, place: int) -> None:
        if not 0 <= place <= len(self._history):
            return
        if self._recalled == len(self._history):
            self._draft = self.text
        self._recalled = place
        self.text = self._draft if place == len(self._history) else self._history[place]
        self.cursor = len(self.text)

    def picture(self, prompt: str, columns: int) -> tuple[str, int]:
        """The text to show in one row of `columns`, and the column of the cursor."""
        room = max(columns - 1, 1)
        if self._question is not None:
            asked = _clip(f"send {self._question.count(_NEWLINE) + 1} lines as one message? y/n ", room)
            return asked, len(asked)
        shown = [harmless(character) for character in self.text]
        widths = [sum(map(cells, piece)) for piece in shown]
        start = _clip(prompt, room // 2)
        left = sum(map(cells, start))
        # First as much as fits before the cursor, then as much as fits behind it.
        first, used = self.cursor, 0
        while first and left + used + widths[first - 1] <= room:
            first -= 1
            used += widths[first]
        last, total = self.cursor, used
        while last < len(shown) and left + total + widths[last] <= room:
            total += widths[last]
            last += 1
        return start + "".join(shown[first:last]), left + used


def _clip(text: str, columns: int) -> str:
    clipped = ""
    for character in text:
        columns -= cells(character)
        if columns < 0:
            break
        clipped += character
    return clipped
