"""pylibmc, and so libmemcached, as their users call them: behaviours, bulk calls, pools."""

import threading

import pylibmc
import pytest

from limits import ITEM_SIZE_LIMIT_BYTES, LARGEST_PORTABLE_VALUE_BYTES
from server import poll


def connect(server, **behaviors):
    return pylibmc.Client([server.address], behaviors={"cas": True, **behaviors})


# What production settings commonly switch on; `connect` is the default client.
SETTINGS = {
    "default": {},
    "tcp_nodelay": {"tcp_nodelay": True},
    "no_block": {"no_block": True, "tcp_nodelay": True},
    "ketama": {"ketama": True, "hash": "murmur"},
    "verify_keys": {"verify_keys": True},
    "timeouts": {"connect_timeout": 5000, "send_timeout": 5_000_000, "receive_timeout": 5_000_000},
    "keepalive": {"tcp_keepalive": True},
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def client(request, server):
    client = connect(server, **request.param)
    yield client
    client.disconnect_all()


@pytest.fixture
def plain(server):
    client = connect(server)
    yield client
    client.disconnect_all()


def test_stores_and_returns_python_values(client):
    assert client.get("k") is None
    assert client.get("k", "default") == "default"
    for value in ["text", "", b"bytes\r\n\0", 42, 2**70, 1.5, True, None, {"a": [1, (2,)]}]:
        assert client.set("k", value) is True
        assert client.get("k", "missed") == value


def test_add_and_replace_depend_on_presence(client):
    assert client.replace("k", "1") is False
    assert client.add("k", "2") is True
    assert client.add("k", "3") is False
    assert client.replace("k", "4") is True
    assert client.get("k") == "4"


def test_append_and_prepend_extend_a_present_value(client):
    assert client.append("k", "x") is False
    client.set("k", "middle")
    assert client.append("k", ">") is True
    assert client.prepend("k", "<") is True
    assert client.get("k") == "<middle>"


def test_cas_lets_one_writer_win(client):
    assert client.gets("k") == (None, None)
    with pytest.raises(pylibmc.NotFound):
        client.cas("k", "x", 1)
    client.set("k", "1")
    value, token = client.gets("k")
    assert value == "1"
    assert client.cas("k", "2", token) is True
    assert client.cas("k", "3", token) is False
    assert client.get("k") == "2"


def test_incr_and_decr_count(client):
    with pytest.raises(pylibmc.NotFound):
        client.incr("n")
    client.set("n", "10")
    assert client.incr("n") == 11
    assert client.incr("n", 2**30) == 2**30 + 11
    assert client.decr("n", 11) == 2**30
    assert client.decr("n", 2**31 - 1) == 0


def test_incr_multi_counts_what_is_there(plain):
    plain.set_multi({"a": 1, "b": 2})
    plain.incr_multi(["a", "b"], delta=10)
    assert plain.get_multi(["a", "b"]) == {"a": 11, "b": 12}
    with pytest.raises(pylibmc.NotFound):
        plain.incr_multi(["a", "absent"])


def test_incr_of_text_is_an_error_and_the_connection_stays(plain, server):
    plain.set("k", "text")
    before = server.stat("total_connections")
    with pytest.raises(pylibmc.Error):
        plain.incr("k")
    assert plain.get("k") == "text"
    # The two readings of the counter each took a connection; the client took none.
    assert int(server.stat("total_connections")) == int(before) + 1


def test_deletes(client):
    assert client.delete("k") is False
    client.set("k", "v")
    assert client.delete("k") is True
    assert client.get("k") is None


def test_many_keys_at_once(client):
    values = {f"k{i}": f"v{i}" for i in range(500)}
    assert client.set_multi(values) == []
    assert client.get_multi([*values, "absent"]) == values
    assert client.get_multi([]) == {}
    assert client.delete_multi(list(values)) is True
    assert client.get_multi(list(values)) == {}
    assert client.add_multi({"k1": "1"}) == []
    assert client.get("k1") == "1"


def test_a_key_prefix_for_bulk_calls(plain):
    assert plain.set_multi({"a": 1, "b": 2}, key_prefix="app:") == []
    assert plain.get_multi(["a", "b"], key_prefix="app:") == {"a": 1, "b": 2}
    assert plain.get("app:a") == 1
    assert plain.get("a") is None
    assert plain.delete_multi(["a", "b"], key_prefix="app:") is True


def test_touch_and_expiry(plain):
    assert plain.touch("absent", 10) is False
    plain.set("short", "v", time=1)
    plain.set("long", "v", time=1000)
    plain.set("touched", "v")
    assert plain.touch("touched", 1) is True
    poll(lambda: plain.get_multi(["short", "long", "touched"]) == {"long": "v"}, "the items expire")


def test_unicode_and_binary_keys(plain):
    for key in ["schlüssel", "钥匙", b"\x80\xff\xfe", "k" * 250]:
        assert plain.set(key, "v") is True
        assert plain.get(key) == "v"
        assert plain.get_multi([key]) == {key: "v"}
        assert plain.delete(key) is True


def test_a_key_that_is_too_long_never_leaves_the_client(plain):
    with pytest.raises(ValueError):
        plain.set("k" * 251, "v")
    assert plain.set("k", "v") is True


@pytest.mark.parametrize("size_bytes", [0, 1, 2047, 8192, 100_000, LARGEST_PORTABLE_VALUE_BYTES])
def test_values_of_many_sizes(client, size_bytes):
    value = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
    assert client.set("k", value) is True
    assert client.get("k") == value


def test_a_value_over_the_limit_is_refused_and_the_client_goes_on(plain):
    plain.set("k", "old")
    for size_bytes in [ITEM_SIZE_LIMIT_BYTES, 2 * ITEM_SIZE_LIMIT_BYTES]:
        with pytest.raises(pylibmc.TooBig):
            plain.set("k", b"x" * size_bytes)
        assert plain.get("k") is None
        assert plain.set("k", "small") is True
        assert plain.get("k") == "small"


def test_compressed_values(plain):
    value = "compress me " * 200_000  # above the item size limit when not compressed
    assert plain.set("k", value, min_compress_len=1000) is True
    assert plain.get("k") == value
    assert plain.set_multi({"a": value, "b": "small"}, min_compress_len=1000) == []
    assert plain.get_multi(["a", "b"]) == {"a": value, "b": "small"}


def test_noreply_writes_arrive_in_order(server):
    client = pylibmc.Client([server.address], behaviors={"_noreply": True})
    for i in range(200):
        client.set("k", str(i))
    assert client.get("k") == "199"
    client.delete("k")
    assert client.get("k") is None
    client.disconnect_all()


def test_flush_all(client):
    client.set_multi({"a": 1, "b": 2})
    assert client.flush_all() is True
    assert client.get_multi(["a", "b"]) == {}
    client.set("a", 3)
    assert client.get("a") == 3


def test_stats(plain, server):
    [(address, stats)] = plain.get_stats()
    assert address.startswith(server.address.encode())
    for name in ["pid", "uptime", "curr_items", "cmd_get", "cmd_set", "limit_maxbytes", "threads"]:
        assert int(stats[name]) >= 0, name
    assert len(stats["version"].split(b".")) == 3
    assert stats["version"].split(b".")[0] != b"0"


def test_two_servers_share_the_keys(server, start_server):
    other = start_server()
    for behaviors in [{}, {"ketama": True}, {"distribution": "consistent", "hash": "crc"}, {"ketama_weighted": True}]:
        client = pylibmc.Client([server.address, other.address], behaviors=behaviors)
        client.flush_all()
        values = {f"k{i}": i for i in range(200)}
        assert client.set_multi(values) == []
        assert client.get_multi(list(values)) == values
        for address, stats in client.get_stats():
            assert int(stats["curr_items"]) > 0, (behaviors, address)
        client.disconnect_all()


def test_reconnects_after_disconnect_all(plain):
    plain.set("k", "v")
    plain.disconnect_all()
    assert plain.get("k") == "v"


def test_a_clone_has_a_connection_of_its_own(plain):
    clone = plain.clone()
    plain.set("k", "v")
    assert clone.get("k") == "v"
    clone.disconnect_all()
    assert plain.get("k") == "v"


def run_in_threads(work, threads=4):
    failures = []

    def guarded(number):
        try:
            work(number)
        except Exception as failure:  # reported by the test, not by the thread
            failures.append(failure)

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []


def test_a_client_pool_serves_threads(plain):
    pool = pylibmc.ClientPool(plain, 3)
    plain.set("n", "0")

    def work(number):
        for i in range(50):
            with pool.reserve(block=True) as client:
                client.set(f"t{number}", i)
                client.incr("n")

    run_in_threads(work)
    assert plain.get("n") == "200"
    assert plain.get_multi([f"t{n}" for n in range(4)]) == {f"t{n}": 49 for n in range(4)}


def test_a_thread_mapped_pool_gives_each_thread_a_client(plain):
    pool = pylibmc.ThreadMappedPool(plain)

    def work(number):
        with pool.reserve() as client:
            client.set(f"t{number}", number)
            assert client.get(f"t{number}") == number
        pool.relinquish()

    run_in_threads(work)
    assert plain.get_multi([f"t{n}" for n in range(4)]) == {f"t{n}": n for n in range(4)}


def test_a_unix_socket(start_server, tmp_path):
    path = tmp_path / "socket"
    start_server("-s", str(path), listens_on=path)
    client = pylibmc.Client([str(path)])
    assert client.set("k", "v") is True
    assert client.get("k") == "v"
    client.disconnect_all()
