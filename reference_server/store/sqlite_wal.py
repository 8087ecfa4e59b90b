"""Checks that SQLite's write-ahead log still holds everything that was stable.

After a crash SQLite replays the log up to the first frame whose checksum is wrong, and ignores the rest. That is
right for a torn tail, which was not acknowledged. It is silent loss if a bit has flipped further in front. The two
can be told apart: a transaction is written only after the one before it was synced. So if anything follows the end
of the transaction with the wrong frame, that transaction was stable.

Damage within the last transaction, or to the 24 octets that end the one before, looks like a torn tail: no reader
of the log can tell them apart.

Layout (sqlite.org/fileformat2.html#walformat), big-endian: a header of 32 octets `magic u32, version u32,
page size u32, sequence u32, salt[8], checksum u32 x 2`, then frames of 24 octets `page u32, size u32 (not 0
at the end of a transaction), salt[8], checksum u32 x 2` and one page each. Frames with another salt remain
from an earlier use of the file. The checksum of each frame continues that of the frame before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from reference_server.store.base import StoreCorrupt

_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683  # the order in which checksums read the octets of words
_SALT_DAMAGE_BITS = 4
_INDEX_HEADER = struct.Struct("=IIIBBHII8s8s8s")  # of the WAL index, which has it twice
_INDEX_VERSION = 3_007_000
_PAGE_SIZES = {1 << bits for bits in range(9, 17)}


def check_wal(path: Path, recovered: Callable[[], int | None] = lambda: None) -> int:
    """Raise StoreCorrupt if a stable transaction in the write-ahead log `path` would be lost.

    Returns how many octets of an incomplete transaction are at its end, 0 if there are none. SQLite drops them
    silently: after a crash they are what was being written, and were not acknowledged.

    Call this before SQLite opens the database, and only if each earlier opening has emptied the log: otherwise
    the remains of two crashes could be taken for one history. `recovered` tells how many frames SQLite would use, if it
    can: then they are not read here, which takes long for a large log.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        raw = file.read(_HEADER.size)
        if len(raw) < _HEADER.size:
            return len(raw)  # torn before anything was written behind it
        magic, _version, page_size, _sequence, salt, *checksum = _HEADER.unpack(raw)
        little = magic == _MAGIC_LITTLE
        sound = little or magic == _MAGIC_BIG
        if not sound or page_size not in _PAGE_SIZES or _checksum(raw[:24], little, 0, 0) != tuple(checksum):
            # The header is synced before the first frame is written.
            if file.read(1):
                raise StoreCorrupt(path, "a write-ahead log with a sound header", "a damaged one")
            return len(raw)
        found = recovered()
        if found is None:
            valid, complete = _valid_frames(file, page_size, salt, little, (checksum[0], checksum[1]))
        else:
            valid = complete = found  # of valid frames behind these none ends a transaction
        file.seek(_HEADER.size + valid * (_FRAME.size + page_size))
        if _is_followed(file, page_size, salt):
            raise StoreCorrupt(
                path,
                "only the last transaction to be incomplete",
                f"stable data behind a damaged frame {valid + 1}",
            )
        return _incomplete(file, _HEADER.size + complete * (_FRAME.size + page_size), page_size, salt)


def recovered_frames(shared_memory: Path) -> int | None:
    """How many frames SQLite uses, from the file that it shares between processes, while a connection is open; None if
    that cannot be told."""
    try:
        header = shared_memory.read_bytes()[: 2 * _INDEX_HEADER.size]
    except OSError:
        return None
    if len(header) < 2 * _INDEX_HEADER.size or header[: _INDEX_HEADER.size] != header[_INDEX_HEADER.size :]:
        return None
    version, _unused, _change, initialised, _order, _page_size, frames, *_rest = _INDEX_HEADER.unpack_from(header)
    return int(frames) if version == _INDEX_VERSION and initialised else None


def _valid_frames(
    file: BinaryIO, page_size: int, salt: bytes, little: bool, checksum: tuple[int, int]
) -> tuple[int, int]:
    """The number of frames before the first damaged one, and how many of these belong to complete transactions."""
    count = complete = 0
    while len(frame := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        _page, size, frame_salt, *expected = _FRAME.unpack_from(frame)
        checksum = _checksum(frame[:8] + frame[_FRAME.size :], little, *checksum)
        if frame_salt != salt or checksum != tuple(expected):
            break
        count += 1
        if size:
            complete = count
    return count, complete


def _incomplete(file: BinaryIO, start: int, page_size: int, salt: bytes) -> int:
    """Octets from `start` to the end of the last frame that was written in this use of the file."""
    whole = _FRAME.size + page_size
    end = at = file.seek(start)
    while frame := file.read(whole):
        at += len(frame)
        # A salt with a few wrong bits is this one, damaged. One of an earlier use differs in about half of 32 bits.
        wrong_bits = (int.from_bytes(frame[8:16], "big") ^ int.from_bytes(salt, "big")).bit_count()
        if len(frame) < whole or wrong_bits <= _SALT_DAMAGE_BITS:
            end = at
    return end - start


def _is_followed(file: BinaryIO, page_size: int, salt: bytes) -> bool:
    """Whether, from here on, a transaction ends and something of this use of the file follows it."""
    ended = False
    while len(header := file.read(_FRAME.size)) == _FRAME.size:
        _page, size, frame_salt, *_checksum = _FRAME.unpack(header)
        if frame_salt == salt:
            if ended:
                return True
            ended = size != 0
        file.seek(page_size, 1)
    return False


def _checksum(data: bytes, little: bool, first: int, second: int) -> tuple[int, int]:
    """SQLite's running checksum over pairs of 32-bit words."""
    words = iter(struct.unpack(f"{'<' if little else '>'}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
