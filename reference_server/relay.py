"""From a PUBLISH to what is stored, and from what is stored to MESSAGE."""

from hashlib import blake2b

from protocol.codec import pack_message
from protocol.frames import Field, Message, Publish
from protocol.registry import Flag, is_relayed
from reference_server.store import Record


def pack_fields(publish: Publish) -> bytes:
    """The relayed extension fields of a PUBLISH, as they stand on the wire (RW-FIELD-5, RW-FIELD-6)."""
    return b"".join(
        field.type.to_bytes(2, "big") + len(field.value).to_bytes(2, "big") + field.value
        for field in publish.fields
        if is_relayed(field.type)
    )


def unpack_fields(octets: bytes) -> tuple[Field, ...]:
    """The inverse of `pack_fields`."""
    fields = []
    at = 0
    while at < len(octets):
        end = at + 4 + int.from_bytes(octets[at + 2 : at + 4], "big")
        fields.append(Field(int.from_bytes(octets[at : at + 2], "big"), octets[at + 4 : end]))
        at = end
    return tuple(fields)


def content_digest(ctype: int, payload: bytes, fields: bytes, account: str) -> bytes:
    """16 octets that stand for "the same content by the same verified author" (section 10.2).

    `account` is "" for an author who is not verified: so two of those count as the same author (RW-DEDUPE-2).
    """
    parts = (len(payload), ctype, len(fields), fields, account.encode(), payload)
    return blake2b(b"%d %d %d %b %b%b" % parts, digest_size=16).digest()


def message_octets(record: Record, ref: int) -> bytes:
    """The MESSAGE of a record in the stream of the room `ref`: the same octets for every member."""
    return pack_message(
        record.seq, record.time_ms, record.sender, record.id, record.ctype, record.name.encode(), record.payload,
        record.fields, Flag.SEQ | Flag.VERIFIED if record.verified else Flag.SEQ, 0, ref,
    )  # fmt: skip


def message_frame(record: Record, ref: int, request: int = 0) -> Message:
    """The MESSAGE of a record; `request` is HISTORY's, or 0 in the stream."""
    return Message(
        record.seq,
        record.time_ms,
        record.sender,
        record.id,
        record.ctype,
        record.name,
        record.payload,
        unpack_fields(record.fields) if record.fields else (),
        Flag.SEQ | Flag.VERIFIED if record.verified else Flag.SEQ,
        request,
        ref,
    )
