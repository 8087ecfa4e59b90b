"""Turns a PUBLISH into what is stored, and what is stored into MESSAGE."""

from hashlib import blake2b

from protocol.codec import pack_message
from protocol.frames import Publish
from protocol.registry import Flag, is_relayed
from reference_server.store.base import Record


def pack_fields(publish: Publish) -> bytes:
    """The relayed extension fields of a PUBLISH, as they stand on the wire (RW-FIELD-5, RW-FIELD-6)."""
    return b"".join(
        field.type.to_bytes(2, "big") + len(field.value).to_bytes(2, "big") + field.value
        for field in publish.fields
        if is_relayed(field.type)
    )


def content_digest(ctype: int, payload: bytes, fields: bytes, account: str) -> bytes:
    """16 octets that are equal for the same content by the same verified author (section 10.2).

    `account` is "" for an author who is not verified, so all of those count as the same author (RW-DEDUPE-2).
    """
    parts = (len(payload), ctype, len(fields), fields, account.encode(), payload)
    return blake2b(b"%d %d %d %b %b%b" % parts, digest_size=16).digest()


def message_octets(record: Record, ref: int, request: int = 0) -> bytes:
    """The MESSAGE of a record: in the stream of the room `ref`, or in the reply to the HISTORY with this `request`."""
    seq, time_ms, _, sender, id, ctype, name, verified, payload, fields = record
    flags = Flag.SEQ | Flag.VERIFIED if verified else Flag.SEQ
    return pack_message(seq, time_ms, sender, id, ctype, name.encode(), payload, fields, flags, request, ref)
