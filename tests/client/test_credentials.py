"""reference_client.chat.credentials: where the password comes from."""

from pathlib import Path

import pytest

from reference_client.chat.credentials import credentials


@pytest.mark.parametrize(
    ("octets", "password"),
    [
        (b"secret", "secret"),
        (b"secret\r\nmore", "secret"),
        (b"\xef\xbb\xbfsecret\n", "secret"),  # some editors put a byte order mark first
        (b" \xc3\xa4 ", " \u00e4 "),
    ],
)
def test_password_of_a_file(octets: bytes, password: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(octets)
    account = credentials("ada", None, file, {})
    assert account is not None
    assert account.password == password
