"""pymemcache: Client, PooledClient and HashClient as their users call them."""

import json
import socket
import threading

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
)
from pymemcache.serde import compressed_serde, pickle_serde

from limits import ITEM_SIZE_LIMIT_BYTES, LARGEST_PORTABLE_VALUE_BYTES
from server import DEADLINE_SECONDS, poll


def hash_client(endpoint, **options):
    return HashClient([endpoint], **options)


@pytest.fixture(params=[Client, PooledClient, hash_client], ids=["plain", "pooled", "hash"])
def client(request, server):
    """Each kind of client, with a reply asked for every write."""
    client = request.param(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS)
    yield client
    client.close()


@pytest.fixture
def plain(server):
    client = Client(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS)
    yield client
    client.close()


def test_stores_and_returns_a_value(client):
    assert client.get("k") is None
    assert client.get("k", default=b"none") == b"none"
    assert client.set("k", b"v") is True
    assert client.get("k") == b"v"
    assert client.set("k", b"") is True
    assert client.get("k") == b""


def test_add_and_replace_depend_on_presence(client):
    assert client.replace("k", b"1") is False
    assert client.add("k", b"2") is True
    assert client.add("k", b"3") is False
    assert client.get("k") == b"2"
    assert client.replace("k", b"4") is True
    assert client.get("k") == b"4"


def test_append_and_prepend_extend_a_present_value(client):
    assert client.append("k", b"x") is False
    assert client.prepend("k", b"x") is False
    client.set("k", b"middle")
    assert client.append("k", b">") is True
    assert client.prepend("k", b"<") is True
    assert client.get("k") == b"<middle>"


def test_cas_lets_one_writer_win(client):
    assert client.gets("k") == (None, None)
    assert client.cas("k", b"x", b"1") is None
    client.set("k", b"1")
    value, token = client.gets("k")
    assert value == b"1"
    assert client.cas("k", b"2", token) is True
    assert client.cas("k", b"3", token) is False
    assert client.get("k") == b"2"


def test_touch_keeps_the_cas_token(plain):
    plain.set("k", b"1")
    _, token = plain.gets("k")
    assert plain.touch("k", 100) is True
    assert plain.gets("k") == (b"1", token)
    plain.append("k", b"2")
    assert plain.gets("k")[1] != token


def test_incr_and_decr_count(client):
    assert client.incr("n", 1) is None
    assert client.decr("n", 1) is None
    client.set("n", b"10")
    assert client.incr("n", 5) == 15
    assert client.decr("n", 6) == 9
    assert client.decr("n", 100) == 0
    client.set("n", b"18446744073709551615")
    assert client.incr("n", 1) == 0


def test_incr_of_text_is_the_clients_error(plain):
    plain.set("k", b"text")
    with pytest.raises(MemcacheClientError, match="cannot increment or decrement non-numeric value"):
        plain.incr("k", 1)
    assert plain.get("k") == b"text"
    plain.set("n", b"1")
    with pytest.raises(MemcacheClientError, match="invalid numeric delta argument"):
        plain.incr("n", -1)
    assert plain.get("n") == b"1"


def test_deletes(client):
    assert client.delete("k") is False
    client.set("k", b"v")
    assert client.delete("k") is True
    assert client.get("k") is None


def test_many_keys_at_once(client):
    values = {f"k{i}": b"v%d" % i for i in range(300)}
    assert client.set_many(values) == []
    assert client.get_many([*values, "absent"]) == values
    assert client.get_many([]) == {}
    assert client.delete_many(list(values)) is True
    assert client.get_many(list(values)) == {}


def test_gets_many_returns_tokens_that_cas_accepts(client):
    client.set_many({"a": b"1", "b": b"2"})
    found = client.gets_many(["a", "b", "absent"])
    assert {key: value for key, (value, _) in found.items()} == {"a": b"1", "b": b"2"}
    for key, (_, token) in found.items():
        assert client.cas(key, b"new", token) is True


def test_touch_of_absent_and_present(client):
    assert client.touch("k", 10) is False
    client.set("k", b"v")
    assert client.touch("k", 10) is True


def test_an_item_expires(client):
    client.set("short", b"v", expire=1)
    client.set("long", b"v", expire=1000)
    assert client.get("short") == b"v"
    poll(lambda: client.get("short") is None, "the item expires")
    assert client.get("long") == b"v"


def test_touch_makes_an_item_expire(client):
    client.set("k", b"v")
    client.touch("k", 1)
    poll(lambda: client.get("k") is None, "the touched item expires")


def test_touch_saves_an_item_from_expiring(client):
    client.set("kept", b"v", expire=2)
    client.set("witness", b"v", expire=2)
    assert client.touch("kept", 1000) is True
    poll(lambda: client.get("witness") is None, "the untouched item expires")
    assert client.get("kept") == b"v"


def test_an_expiry_in_the_past_is_a_miss_at_once(client):
    client.set("k", b"old")
    assert client.set("k", b"v", expire=-1) is True
    assert client.get("k") is None
    assert client.set("k", b"v", expire=2_592_001) is True  # above 30 days: a moment in 1970
    assert client.get("k") is None


def test_noreply_writes_are_seen_by_what_follows_on_the_connection(plain):
    for i in range(500):
        plain.set(f"k{i % 10}", b"%d" % i, noreply=True)
    assert plain.get("k9") == b"499"
    plain.set("n", b"0", noreply=True)
    for _ in range(100):
        plain.incr("n", 1, noreply=True)
    plain.decr("n", 1, noreply=True)
    plain.append("k0", b"!", noreply=True)
    plain.prepend("k0", b"!", noreply=True)
    plain.add("k0", b"no", noreply=True)
    plain.replace("absent", b"no", noreply=True)
    plain.touch("k1", 100, noreply=True)
    plain.delete("k2", noreply=True)
    plain.cas("k3", b"no", b"1", noreply=True)
    assert plain.get("n").rstrip() == b"99"  # doc/protocol.txt: decr may leave trailing spaces
    assert plain.get_many(["k0", "k2", "absent", "k3"]) == {"k0": b"!490!", "k3": b"493"}
    plain.flush_all(noreply=True)
    assert plain.get("k9") is None


def test_noreply_hides_an_error_reply(plain):
    plain.set("k", b"text")
    plain.incr("k", 1, noreply=True)
    assert plain.get("k") == b"text"


def test_values_may_hold_any_byte(client):
    every_byte = bytes(range(256))
    protocol_words = b"END\r\nVALUE k 0 1\r\nx\r\nSTORED\r\n\r\n"
    client.set_many({"a": every_byte, "b": protocol_words, "c": b"\r\n", "d": b"\0"})
    assert client.get_many(["a", "b", "c", "d"]) == {"a": every_byte, "b": protocol_words, "c": b"\r\n", "d": b"\0"}


def test_unicode_keys_and_values(server):
    client = Client(server.endpoint, allow_unicode_keys=True, encoding="utf-8", default_noreply=False)
    assert client.set("schlüssel-钥匙-🔑", "値") is True
    assert client.get("schlüssel-钥匙-🔑") == "値".encode()
    assert client.get_many(["schlüssel-钥匙-🔑"]) == {"schlüssel-钥匙-🔑": "値".encode()}
    assert client.delete("schlüssel-钥匙-🔑") is True
    client.close()


def test_keys_of_raw_high_bytes(server):
    client = Client(server.endpoint, allow_unicode_keys=True, default_noreply=False)
    key = b"\x80\xfe\xff"
    assert client.set(key, b"v") is True
    assert client.get(key) == b"v"
    client.close()


@pytest.mark.parametrize("key", ["k" * 250, b"k" * 250], ids=["text", "bytes"])
def test_the_longest_key(client, key):
    assert client.set(key, b"v") is True
    assert client.get(key) == b"v"
    with pytest.raises(MemcacheIllegalInputError):
        client.set(key + key[:1], b"v")


def test_flags_come_back_to_the_serializer(server):
    class Json:
        def serialize(self, key, value):
            return (value, 0) if isinstance(value, bytes) else (json.dumps(value), 4_294_967_295)

        def deserialize(self, key, value, flags):
            return json.loads(value) if flags == 4_294_967_295 else value

    client = Client(server.endpoint, serde=Json(), default_noreply=False)
    client.set("object", {"a": [1, None]})
    client.set("bytes", b"{}")
    assert client.get_many(["object", "bytes"]) == {"object": {"a": [1, None]}, "bytes": b"{}"}
    client.close()


@pytest.mark.parametrize("serde", [pickle_serde, compressed_serde], ids=["pickle", "compressed"])
def test_python_objects(server, serde):
    client = Client(server.endpoint, serde=serde, default_noreply=False)
    for value in [1, 2**70, 1.5, "text", "ü" * 5000, b"bytes", None, [1, (2, {"3": {4}})]]:
        client.set("k", value)
        assert client.get("k", default="missed") == value
    client.close()


def test_a_key_prefix_stays_out_of_sight(server):
    prefixed = Client(server.endpoint, key_prefix=b"app:", default_noreply=False)
    bare = Client(server.endpoint)
    prefixed.set("k", b"v")
    assert prefixed.get_many(["k"]) == {"k": b"v"}
    assert bare.get("k") is None
    assert bare.get("app:k") == b"v"
    prefixed.close()
    bare.close()


@pytest.mark.parametrize("size_bytes", [1, 1023, 2048, 16_384, 65_536, 600_000, LARGEST_PORTABLE_VALUE_BYTES])
def test_values_of_many_sizes(client, size_bytes):
    value = bytes(i % 251 for i in range(1000)) * (size_bytes // 1000 + 1)
    value = value[:size_bytes]
    assert client.set("k", value) is True
    assert client.get("k") == value


def test_a_value_over_the_limit_is_refused_and_drops_the_old_one(plain):
    plain.set("k", b"old")
    for size_bytes in [ITEM_SIZE_LIMIT_BYTES, ITEM_SIZE_LIMIT_BYTES + 1, 3 * ITEM_SIZE_LIMIT_BYTES]:
        with pytest.raises(MemcacheServerError, match="object too large for cache"):
            plain.set("k", b"x" * size_bytes)
    assert plain.get("k") is None
    plain.set("k", b"small")
    with pytest.raises(MemcacheServerError, match="object too large for cache"):
        plain.replace("k", b"x" * ITEM_SIZE_LIMIT_BYTES)
    assert plain.get("k") == b"small"


def test_the_limit_is_configurable(start_server):
    server = start_server("-I", "4m", "-m", "128")
    client = Client(server.endpoint, default_noreply=False)
    value = b"x" * (3 * ITEM_SIZE_LIMIT_BYTES)
    assert client.set("k", value) is True
    assert client.get("k") == value
    client.close()


def test_a_too_large_value_among_many_spoils_only_itself(server):
    client = HashClient([server.endpoint], default_noreply=False, ignore_exc=True)
    client.set("before", b"v")
    assert client.set("large", b"x" * ITEM_SIZE_LIMIT_BYTES) is False
    assert client.set("after", b"v") is True
    assert client.get_many(["before", "large", "after"]) == {"before": b"v", "after": b"v"}
    client.close()


def test_flush_all_drops_everything_set_before_it(client):
    client.set_many({"a": b"1", "b": b"2"})
    client.flush_all()
    assert client.get_many(["a", "b"]) == {}
    client.set("a", b"3")
    assert client.get("a") == b"3"


def test_a_delayed_flush_strikes_later(plain):
    plain.set("k", b"v")
    assert plain.flush_all(delay=1) is True
    poll(lambda: plain.get("k") is None, "the delayed flush")


def test_version_is_a_triple(plain):
    version = plain.version()
    parts = [int(part) for part in version.split(b".")]
    assert len(parts) == 3 and parts[0] > 0 and all(part <= 255 for part in parts), version


def test_stats_have_the_types_the_client_converts(start_server):
    plain = Client(start_server().endpoint, default_noreply=False)
    plain.set("k", b"v")
    plain.get("k")
    stats = plain.stats()
    for name in [b"pid", b"uptime", b"time", b"curr_items", b"total_items", b"cmd_get", b"cmd_set", b"get_hits",
                 b"bytes", b"curr_connections", b"limit_maxbytes", b"threads", b"evictions", b"pointer_size"]:
        assert isinstance(stats[name], int), (name, stats[name])
    assert isinstance(stats[b"rusage_user"], float) and isinstance(stats[b"rusage_system"], float)
    assert stats[b"version"] == plain.version()
    assert stats[b"curr_items"] == 1
    plain.close()


def test_stats_settings(plain):
    settings = plain.stats("settings")
    assert settings[b"maxbytes"] == 64 * 1024 * 1024
    assert settings[b"maxconns"] == 1024
    assert settings[b"item_size_max"] == ITEM_SIZE_LIMIT_BYTES
    assert settings[b"evictions"] == b"on"
    assert settings[b"cas_enabled"] == b"yes"
    assert isinstance(settings[b"growth_factor"], float)
    assert isinstance(settings[b"tcpport"], int)


def test_stats_items_slabs_and_conns(plain):
    plain.set("k", b"v")
    items = plain.stats("items")
    assert any(name.endswith(b":number") for name in items), items
    slabs = plain.stats("slabs")
    assert b"active_slabs" in slabs and b"total_malloced" in slabs
    conns = plain.stats("conns")
    assert any(name.endswith(b":addr") for name in conns), conns


def test_counters_follow_what_was_asked(start_server):
    plain = Client(start_server().endpoint, default_noreply=False)

    def counters():
        return {name.decode(): value for name, value in plain.stats().items()}

    before = counters()
    plain.set("k", b"1")
    plain.get_many(["k", "absent"])
    plain.incr("k", 1)
    plain.incr("absent", 1)
    plain.decr("k", 1)
    plain.decr("absent", 1)
    plain.cas("k", b"1", plain.gets("k")[1])
    plain.cas("k", b"1", b"1")
    plain.cas("absent", b"1", b"1")
    plain.touch("k", 0)
    plain.touch("absent", 0)
    plain.delete("k")
    plain.delete("k")
    after = counters()
    grown = {name: after[name] - before[name] for name in before
             if name.split("_")[0] in ("cmd", "get", "incr", "decr", "cas", "touch", "delete")}
    assert grown == {
        "cmd_get": 3, "cmd_set": 4, "cmd_flush": 0, "cmd_touch": 2, "cmd_meta": 0,
        "get_hits": 2, "get_misses": 1, "get_expired": 0, "get_flushed": 0,
        "incr_hits": 1, "incr_misses": 1, "decr_hits": 1, "decr_misses": 1,
        "cas_hits": 1, "cas_badval": 1, "cas_misses": 1,
        "touch_hits": 1, "touch_misses": 1, "delete_hits": 1, "delete_misses": 1,
    }
    plain.close()


def test_cache_memlimit(start_server):
    client = Client(start_server().endpoint)
    assert client.cache_memlimit(100) is True
    assert client.stats()[b"limit_maxbytes"] == 100 * 1024 * 1024
    client.close()


def test_gat_through_a_raw_command(plain):
    plain.set("k", b"v")
    assert plain.raw_command(b"gat 100 k", b"END\r\n") == b"VALUE k 0 1\r\nv\r\n"
    assert plain.raw_command(b"gat 100 absent", b"END\r\n") == b""
    reply = plain.raw_command(b"gats 1 k", b"END\r\n")
    assert reply == b"VALUE k 0 1 %s\r\nv\r\n" % plain.gets("k")[1]
    poll(lambda: plain.get("k") is None, "the item that gats touched expires")


def test_meta_commands_through_raw_commands(plain):
    assert plain.raw_command(b"mn") == b"MN"
    assert plain.raw_command(b"mg k v") == b"EN"
    assert plain.raw_command(b"ms k 5 F7 T100\r\nhello") == b"HD"
    assert plain.raw_command(b"mg k s f t Oopaque k") == b"HD s5 f7 t100 Oopaque kk"
    assert plain.raw_command(b"mg k v", b"hello\r\n") == b"VA 5\r\n"
    assert plain.raw_command(b"ms n 1\r\n1") == b"HD"
    assert plain.raw_command(b"ma n D41 v", b"42\r\n") == b"VA 2\r\n"
    assert plain.raw_command(b"mg absent v q\r\nmn") == b"MN"
    assert plain.raw_command(b"md k") == b"HD"
    assert plain.raw_command(b"md k") == b"NF"
    assert plain.get("n") == b"42"


def test_meta_stale_items_have_one_winner(plain):
    assert plain.raw_command(b"ms k 3\r\nold") == b"HD"
    assert plain.raw_command(b"md k I T30") == b"HD"
    # protocol.txt does not order W, X and Z, and the order has differed between memcached versions.
    assert sorted(plain.raw_command(b"mg k s").split()) == [b"HD", b"W", b"X", b"s3"]
    assert sorted(plain.raw_command(b"mg k s").split()) == [b"HD", b"X", b"Z", b"s3"]
    assert plain.raw_command(b"ms k 3\r\nnew") == b"HD"
    assert plain.raw_command(b"mg k s") == b"HD s3"


def test_an_unknown_command_is_an_error(plain):
    with pytest.raises(MemcacheUnknownCommandError):
        plain.raw_command(b"unheard_of 1 2")
    with pytest.raises(MemcacheUnknownCommandError):
        plain.raw_command(b"GET k")
    assert plain.set("k", b"v") is True


def test_the_connection_stays_after_an_error(server):
    # On a bare connection: the client itself closes its socket when it raises.
    large = b"x" * ITEM_SIZE_LIMIT_BYTES
    exchanges = [
        (b"unheard_of\r\n", b"ERROR\r\n"),
        (b"set k 0 0 %d\r\n%s\r\n" % (len(large), large), b"SERVER_ERROR object too large for cache\r\n"),
        (b"set k 0 0 4\r\ntext\r\n", b"STORED\r\n"),
        (b"incr k 1\r\n", b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (b"get " + b"k" * 251 + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
        (b"get k\r\n", b"VALUE k 0 4\r\ntext\r\nEND\r\n"),
        (b"mn\r\n", b"MN\r\n"),
    ]
    with server.connect() as connection:
        for request, expected in exchanges:
            connection.sendall(request)
            assert connection.recv(len(expected), socket.MSG_WAITALL) == expected


def test_a_client_reconnects_after_quit_and_close(plain):
    plain.set("k", b"v")
    plain.quit()
    assert plain.get("k") == b"v"
    plain.close()
    assert plain.get("k") == b"v"


def test_shutdown_is_refused_unless_enabled(plain):
    # `ERROR: ...` up to 1.6.x of Debian 12, which the client takes for an unknown command; SERVER_ERROR later.
    with pytest.raises((MemcacheServerError, MemcacheUnknownCommandError)):
        plain.raw_command(b"shutdown")
    assert plain.get("k") is None


@pytest.mark.parametrize("graceful", [False, True])
def test_shutdown_stops_a_server_started_with_it(start_server, graceful):
    server = start_server("-A")
    client = Client(server.endpoint)
    client.version()
    client.shutdown(graceful)

    def refuses():
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    poll(refuses, "the server stops listening")


def test_a_pool_serves_threads_at_once(server):
    client = PooledClient(server.endpoint, max_pool_size=4, default_noreply=False, timeout=DEADLINE_SECONDS)
    client.set("n", b"0")
    failures = []

    def work(thread):
        for i in range(100):
            key, value = f"t{thread}-{i}", b"%d" % i * 50
            client.set(key, value)
            client.incr("n", 1)
            if client.get(key) != value:
                failures.append(key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert client.get("n") == b"400"
    client.close()


def test_cas_loops_lose_no_increment(server):
    def count():
        client = Client(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS)
        for _ in range(50):
            while True:
                value, token = client.gets("n")
                if client.cas("n", b"%d" % (int(value) + 1), token):
                    break
        client.close()

    client = Client(server.endpoint, default_noreply=False)
    client.set("n", b"0")
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("n") == b"200"
    client.close()


def test_a_hash_client_spreads_over_servers_and_survives_one(server, start_server):
    other = start_server()
    client = HashClient(
        [server.endpoint, other.endpoint],
        default_noreply=False, retry_attempts=0, dead_timeout=1000, timeout=DEADLINE_SECONDS,
    )
    values = {f"k{i}": b"v" for i in range(100)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    for each in (server, other):
        assert int(each.stat("curr_items")) > 0
    other.stop()

    def moved_to_the_survivor():
        try:
            return client.set_many(values) == [] and client.get_many(list(values)) == values
        except (OSError, MemcacheUnexpectedCloseError):
            return False

    poll(moved_to_the_survivor, "the client takes the dead server out")
    client.close()


def test_a_retrying_client_gets_over_a_closed_connection(server):
    base = Client(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS)
    client = RetryingClient(base, attempts=3, retry_delay=0, retry_for=[OSError, MemcacheServerError])
    client.set("k", b"v")
    base.sock.shutdown(2)
    assert client.get("k") == b"v"
    base.close()


def test_subscript_access(plain):
    plain["k"] = b"v"
    assert plain["k"] == b"v"
    del plain["k"]
    with pytest.raises(KeyError):
        plain["k"]


def test_a_unix_socket(start_server, tmp_path):
    path = tmp_path / "socket"
    start_server("-s", str(path), listens_on=path)
    client = Client(str(path), default_noreply=False, timeout=DEADLINE_SECONDS)
    assert client.set("k", b"v") is True
    assert client.get("k") == b"v"
    client.close()
