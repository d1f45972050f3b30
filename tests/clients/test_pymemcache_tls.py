"""pymemcache over TLS, with Python's own ssl module: `tls_context` as its users give it."""

import ssl
import subprocess

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from server import DEADLINE_SECONDS, HOST


def hash_client(endpoint, **options):
    return HashClient([endpoint], **options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of the server's address, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "server.pem", folder / "server.key"
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    request += ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def server(certificate, start_server):
    chain, key = certificate
    return start_server("-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}")


@pytest.mark.parametrize("kind", [Client, PooledClient, hash_client], ids=["plain", "pooled", "hash"])
def test_a_client_that_trusts_the_certificate_is_served(server, certificate, kind):
    context = ssl.create_default_context(cafile=certificate[0])
    client = kind(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS, tls_context=context)
    value = bytes(range(256)) * 2000
    assert client.set("key", value)
    assert client.get("key") == value
    # Few: with 1,000 in one send over TLS, memcached 1.6.18 stops answering.
    many = {f"key{n}": str(n).encode() for n in range(20)}
    assert client.set_many(many) == []
    assert client.get_many(list(many)) == many
    client.close()


def test_a_client_that_does_not_trust_it_sends_nothing(server):
    client = Client(server.endpoint, timeout=DEADLINE_SECONDS, tls_context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.set("key", b"value")
