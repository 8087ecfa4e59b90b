"""Which certificates the suite accepts."""

from conformance.harness.tls import Trust, authority


def test_authorities_of_a_file() -> None:
    """They replace the system's, as `--ca` says."""
    assert Trust(authority().ca).context().cert_store_stats()["x509_ca"] == 1
