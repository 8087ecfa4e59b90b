"""Frames and octets as text for people: a line for each frame, hexadecimal below, text of the target escaped."""

from conformance.wire.octets import HEADER, body_values, decode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.registry import Code, FrameType, Sender

_HEX_SHOWN = 96  # octets of one frame that a log shows


def escape(text: str) -> str:
    """Text of a target with control, format and bidirectional characters as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str) -> str:
    """Text in quotation marks, escaped."""
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def code_name(code: int) -> str:
    """A code's name, or its number if the document has none."""
    return Code(code).name if code in Code._value2member_map_ else f"code {code}"


def type_name(type: int) -> str:
    """A frame type's name, or its number if the document has none."""
    return FrameType(type).name if type in FrameType._value2member_map_ else f"frame {type:#06x}"


def frame_line(frame: Frame | Unknown) -> str:
    """A decoded frame in one line."""
    head = f"request={frame.request} room={frame.room}" + (f" flags={frame.flags:#06x}" if frame.flags else "")
    if isinstance(frame, Unknown):
        return f"frame {frame.type:#06x} {head} body={_octets(frame.body)}"
    values = [f"{name}={_value(name, value)}" for name, value in body_values(frame).items()]
    values += [f"field[{item.type:#06x}]={_octets(item.value)}" for item in frame.fields]
    return " ".join([frame.TYPE.name, head, *values])


def octets_line(octets: bytes, sender: Sender) -> str:
    """One whole frame in one line, or what is wrong with it."""
    header = read_header(octets)
    try:
        return frame_line(decode(header, octets[HEADER.size :], sender))
    except RemoteProtocolError as error:
        return f"{type_name(header.type)} request={header.request} room={header.room} that is {escape(str(error))}"


def stream_lines(octets: bytes, sender: Sender) -> list[str]:
    """A line for each whole frame in octets, and one for the octets after them."""
    frames, rest = split_frames(octets)
    lines = [octets_line(frame, sender) for frame in frames]
    if rest:
        lines.append(f"{len(rest)} octets that are no whole frame")
    return lines


def hex_lines(octets: bytes, width: int = 32) -> list[str]:
    """Octets as hexadecimal in groups of four; a last line says how many there are if some are left out."""
    shown = octets[:_HEX_SHOWN]
    lines = [shown[at : at + width].hex(" ", -4) for at in range(0, len(shown), width)]
    if len(octets) > len(shown):
        lines.append(f"... {len(octets)} octets in all")
    return lines


def _value(name: str, value: object) -> str:
    if isinstance(value, str):
        return quoted(value[:80]) + ("..." if len(value) > 80 else "")
    if isinstance(value, bytes):
        return _octets(value)
    if isinstance(value, tuple):
        return f"{len(value)} entries"
    if name == "code" and isinstance(value, int):
        return code_name(value)
    return str(value)


def _octets(octets: bytes) -> str:
    return f"<{octets.hex()}>" if len(octets) <= 24 else f"<{octets[:24].hex()}... {len(octets)} octets>"
