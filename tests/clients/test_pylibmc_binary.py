"""pylibmc, and so libmemcached, in its binary mode."""

import pylibmc
import pytest

from limits import ITEM_SIZE_LIMIT_BYTES

# libmemcached takes another way with the second.
SETTINGS = {
    "default": {},
    "no_block": {"no_block": True, "tcp_nodelay": True},
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def client(request, server):
    client = pylibmc.Client([server.address], binary=True, behaviors={"cas": True, **request.param})
    yield client
    client.disconnect_all()


@pytest.fixture
def plain(server):
    client = pylibmc.Client([server.address], binary=True, behaviors={"cas": True})
    yield client
    client.disconnect_all()


def test_stores_and_returns_python_values(client):
    assert client.get("k") is None
    for value in ["text", "", b"bytes\r\n\0", 42, 2**70, 1.5, True, None, {"a": [1, (2,)]}]:
        assert client.set("k", value) is True
        assert client.get("k", "missed") == value


def test_many_keys_at_once(client):
    pairs = {f"k{n}": f"value {n}" for n in range(500)}
    assert client.set_multi(pairs) == []
    assert client.get_multi([*pairs, "none"]) == pairs
    assert client.delete_multi([*pairs]) is True
    assert client.get_multi([*pairs]) == {}


def test_add_and_replace_depend_on_presence(plain):
    with pytest.raises(pylibmc.NotFound):
        plain.replace("k", "1")
    assert plain.add("k", "2") is True
    assert plain.add("k", "3") is False
    assert plain.replace("k", "4") is True
    assert plain.append("k", "5") is True
    assert plain.prepend("k", "3") is True
    assert plain.append("none", "x") is False
    assert plain.get("k") == "345"


def test_a_token_of_an_older_value_is_refused(plain):
    plain.set("k", "1")
    value, token = plain.gets("k")
    assert (value, plain.cas("k", "2", token), plain.cas("k", "3", token)) == ("1", True, False)
    assert plain.get("k") == "2"


def test_counts(plain):
    with pytest.raises(pylibmc.NotFound):
        plain.incr("n")
    plain.set("n", 10)
    assert (plain.incr("n", 5), plain.decr("n", 100)) == (15, 0)


def test_touches_and_deletes(plain):
    plain.set("k", "v")
    assert plain.touch("k", 100) is True
    assert plain.touch("none", 100) is False
    assert plain.delete("k") is True
    assert plain.delete("k") is False


def test_keys_with_blanks_and_control_characters(plain):
    for key in ["a key", "one\ntwo", "\0zero", "schlüssel"]:
        assert plain.set(key, key) is True
        assert plain.get(key) == key


def test_a_value_too_large_is_refused_and_the_connection_goes_on(plain):
    with pytest.raises(pylibmc.TooBig):
        plain.set("k", b"x" * ITEM_SIZE_LIMIT_BYTES)
    assert plain.set("k", "v") is True
    assert plain.get("k") == "v"


def test_flushes_and_tells_statistics(plain):
    plain.set("k", "v")
    assert plain.flush_all() is True
    assert plain.get("k") is None
    ((_, stats),) = plain.get_stats()
    assert int(stats[b"pid" if b"pid" in stats else "pid"]) > 0
