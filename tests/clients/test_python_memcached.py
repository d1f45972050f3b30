"""python-memcached as its users call it: no exceptions, 0 and None for failure."""

import memcache
import pytest

from limits import ITEM_SIZE_LIMIT_BYTES, LARGEST_PORTABLE_VALUE_BYTES
from server import poll

# Above what the tests send, so that it is the server that refuses a value.
NO_CLIENT_LIMIT_BYTES = 16 * ITEM_SIZE_LIMIT_BYTES


@pytest.fixture
def client(server):
    client = memcache.Client([server.address], cache_cas=True, server_max_value_length=NO_CLIENT_LIMIT_BYTES)
    yield client
    client.disconnect_all()


def test_stores_and_returns_python_values(client):
    assert client.get("k") is None
    assert client.get("k", "default") == "default"
    for value in ["text", "ünïcode", "", b"bytes\r\n\0", 42, 2**70, 1.5, {"a": [1, (2,)]}]:
        assert client.set("k", value)
        assert client.get("k", "missed") == value


def test_add_and_replace_depend_on_presence(client):
    assert not client.replace("k", "1")
    assert client.add("k", "2")
    assert not client.add("k", "3")
    assert client.replace("k", "4")
    assert client.get("k") == "4"


def test_append_and_prepend_extend_a_present_value(client):
    assert not client.append("k", "x")
    client.set("k", "middle")
    assert client.append("k", ">")
    assert client.prepend("k", "<")
    assert client.get("k") == "<middle>"


def test_cas_lets_one_writer_win(client, server):
    client.set("k", "1")
    assert client.gets("k") == "1"
    assert client.cas("k", "2")
    other = memcache.Client([server.address])
    client.gets("k")
    other.set("k", "3")
    assert not client.cas("k", "4")
    assert client.get("k") == "3"
    other.disconnect_all()


def test_incr_and_decr_count(client):
    assert client.incr("n") is None
    client.set("n", 10)
    assert client.incr("n", 5) == 15
    assert client.decr("n") == 14
    assert client.decr("n", 100) == 0


def test_deletes(client):
    client.set("k", "v")
    assert client.delete("k")
    assert client.get("k") is None
    assert not client.delete("k")


def test_many_keys_at_once(client):
    values = {f"k{i}": f"v{i}" for i in range(300)}
    assert client.set_multi(values) == []
    assert client.get_multi([*values, "absent"]) == values
    assert client.delete_multi(list(values)) == 1
    assert client.get_multi(list(values)) == {}


def test_a_key_prefix_for_bulk_calls(client):
    assert client.set_multi({"a": 1, 2: "two"}, key_prefix="app:") == []
    assert client.get_multi(["a", 2], key_prefix="app:") == {"a": 1, 2: "two"}
    assert client.get("app:a") == 1
    assert client.delete_multi(["a", 2], key_prefix="app:") == 1


def test_touch_and_expiry(client):
    assert not client.touch("absent", 10)
    client.set("short", "v", time=1)
    client.set("long", "v", time=1000)
    client.set("touched", "v")
    assert client.touch("touched", 1)
    poll(lambda: client.get_multi(["short", "long", "touched"]) == {"long": "v"}, "the items expire")


def test_noreply_writes_arrive_in_order(client):
    for i in range(200):
        client.set("k", i, noreply=True)
    assert client.get("k") == 199
    client.incr("k", noreply=True)
    client.append("absent", "x", noreply=True)
    client.touch("k", 1000, noreply=True)
    assert client.get("k") == 200
    client.delete("k", noreply=True)
    assert client.get("k") is None
    assert client.set_multi({"a": 1, "b": 2}, noreply=True) == []
    assert client.get_multi(["a", "b"]) == {"a": 1, "b": 2}


def test_unicode_keys(client):
    for key in ["schlüssel", "钥匙", "k" * 250]:
        assert client.set(key, "v")
        assert client.get(key) == "v"
        assert client.delete(key)


@pytest.mark.parametrize("size_bytes", [1, 4096, 100_000, LARGEST_PORTABLE_VALUE_BYTES])
def test_values_of_many_sizes(client, size_bytes):
    value = b"\r\n" * (size_bytes // 2) + b"x" * (size_bytes % 2)
    assert client.set("k", value)
    assert client.get("k") == value


def test_a_value_over_the_limit_is_refused_and_the_client_goes_on(client):
    for size_bytes in [ITEM_SIZE_LIMIT_BYTES, 2 * ITEM_SIZE_LIMIT_BYTES]:
        assert not client.set("k", b"x" * size_bytes)
        assert client.set("other", "v")
        assert client.get("other") == "v"
        assert client.get("k") is None


def test_compressed_values(client):
    value = "compress me " * 200_000
    assert client.set("k", value, min_compress_len=1000)
    assert client.get("k") == value


def test_flush_all(client):
    client.set_multi({"a": 1, "b": 2})
    client.flush_all()
    assert client.get_multi(["a", "b"]) == {}
    client.set("a", 3)
    assert client.get("a") == 3


def test_stats(client, server):
    [(name, stats)] = client.get_stats()
    assert name == f"{server.address} (1)"
    assert int(stats["pid"]) > 0 and int(stats["limit_maxbytes"]) > 0
    assert len(stats["version"].split(".")) == 3
    [(_, settings)] = client.get_stats("settings")
    assert settings["item_size_max"] == str(ITEM_SIZE_LIMIT_BYTES)


def test_stats_of_slabs(client):
    client.set("k", "v")
    [(_, slabs)] = client.get_slab_stats()
    assert int(slabs["active_slabs"]) >= 1
    assert any("chunk_size" in fields for fields in slabs.values() if isinstance(fields, dict)), slabs


def test_two_servers_share_the_keys(server, start_server):
    other = start_server()
    client = memcache.Client([server.address, (other.address, 2)])
    values = {f"k{i}": i for i in range(200)}
    assert client.set_multi(values) == []
    assert client.get_multi(list(values)) == values
    assert all(int(stats["curr_items"]) > 0 for _, stats in client.get_stats())
    client.disconnect_all()


def test_reconnects_after_disconnect_and_quit(client):
    client.set("k", "v")
    client.disconnect_all()
    assert client.get("k") == "v"
    client.quit_all()
    assert client.get("k") == "v"


def test_a_unix_socket(start_server, tmp_path):
    path = tmp_path / "socket"
    start_server("-s", str(path), listens_on=path)
    client = memcache.Client([f"unix:{path}"])
    assert client.set("k", "v")
    assert client.get("k") == "v"
    client.disconnect_all()
