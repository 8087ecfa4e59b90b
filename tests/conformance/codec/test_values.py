"""Values as answers of a codec."""

from conformance.codec.values import differences


def test_differences_between_values() -> None:
    value = {"text": "a\ufffdb", "flags": 0x7FFF, "request": 1, "room": 0, "fields": []}
    assert not differences("OK", value, {**value, "flags": 0})
    assert not differences("OK", value, {**value, "text": "a\ufffd\ufffdb"})
    assert differences("OK", value, {**value, "flags": 1})
    assert differences("OK", value, {**value, "request": "1"})
    assert differences("OK", value, {**value, "request": True})
    assert differences("OK", value, {**value, "more": 1})
    assert differences("OK", value, [])
