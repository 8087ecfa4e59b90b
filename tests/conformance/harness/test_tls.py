"""Which certificates the suite accepts, and the form of its own key."""

import ssl

from conformance.harness.tls import Trust, authority


def test_authorities_of_a_file() -> None:
    """They replace the system's, as `--ca` says."""
    assert Trust(authority().ca).context().cert_store_stats()["x509_ca"] == 1


def test_private_key_is_pkcs8() -> None:
    """Some TLS libraries read no other form of a key, as CONTRACT.md says; the key is that of the certificate."""
    assert authority().key.read_text(encoding="ascii").startswith("-----BEGIN PRIVATE KEY-----\n")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(authority().cert, authority().key)
