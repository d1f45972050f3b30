"""python-binary-memcached, which speaks the binary protocol alone."""

import bmemcached
import pytest

from limits import ITEM_SIZE_LIMIT_BYTES, LARGEST_PORTABLE_VALUE_BYTES


@pytest.fixture
def client(server):
    client = bmemcached.Client((server.address,))
    yield client
    client.disconnect_all()


def test_stores_and_returns_python_values(client):
    assert client.get("k") is None
    for value in ["text", "", b"bytes\r\n\0", 42, 2**70, 1.5, True, {"a": [1, (2,)]}, "x" * 100_000]:
        assert client.set("k", value) is True
        assert client.get("k") == value


def test_add_and_replace_depend_on_presence(client):
    assert client.replace("k", "1") is False
    assert client.add("k", "2") is True
    assert client.add("k", "3") is False
    assert client.replace("k", "4") is True
    assert client.get("k") == "4"


def test_a_token_of_an_older_value_is_refused(client):
    client.set("k", "1")
    value, token = client.gets("k")
    assert value == "1"
    assert client.cas("k", "2", token) is True
    assert client.cas("k", "3", token) is False
    assert client.get("k") == "2"


def test_counts_from_a_default(client):
    assert client.incr("n", 1, default=10) == 10
    assert client.incr("n", 5) == 15
    assert client.decr("n", 100) == 0


def test_many_keys_at_once(client):
    pairs = {f"k{n}": f"value {n}" for n in range(500)}
    assert client.set_multi(pairs) == []
    assert client.get_multi([*pairs, "none"]) == pairs
    assert client.delete_multi([*pairs]) is True
    assert client.get_multi([*pairs]) == {}


def test_deletes_and_flushes(client):
    client.set("k", "v")
    assert client.delete("k") is True
    assert client.get("k") is None
    client.set("k", "v")
    assert client.flush_all() is True
    assert client.get("k") is None


def test_a_value_too_large_is_refused_and_the_connection_goes_on(client):
    client.set("k", "v")
    with pytest.raises(bmemcached.exceptions.MemcachedException, match="Too large"):
        client.set("k", b"x" * ITEM_SIZE_LIMIT_BYTES, compress_level=0)
    assert client.get("k") is None, "it was to be replaced"
    assert client.set("k", b"x" * LARGEST_PORTABLE_VALUE_BYTES, compress_level=0) is True


def test_statistics(client, server):
    stats = client.stats()[server.address]
    assert int(stats["pid"]) > 0
    assert int(stats["curr_connections"]) > 0
