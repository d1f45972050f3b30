"""A cluster as real clients see it: one cache, whichever nodes they ask and however they hash their keys."""

import asyncio
import contextlib
import multiprocessing
import random
import threading
import time

import aiomcache
import memcache
import pylibmc
import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError, MemcacheServerError

from cluster import BRIEF, Cluster
from server import DEADLINE_SECONDS, poll

NODES = 3
KEYS = {f"key{i}": b"value%d" % i for i in range(300)}


@pytest.fixture(scope="module")
def shared_cluster():
    cluster = Cluster(NODES)
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(shared_cluster):
    """A cluster that holds no items."""
    assert shared_cluster.nodes[0].ask(b"flush_all\r\n") == b"OK\r\n"
    return shared_cluster


@pytest.fixture
def own_cluster():
    """A cluster that the test may harm."""
    cluster = Cluster(NODES, *BRIEF)
    yield cluster
    cluster.stop()


def plain_client(endpoint):
    return contextlib.closing(Client(endpoint, default_noreply=False, timeout=DEADLINE_SECONDS))


def assert_all_nodes_have(cluster, values):
    """Asks each node by itself for everything."""
    for endpoint in cluster.endpoints:
        with plain_client(endpoint) as client:
            assert client.get_many(list(values)) == values


def test_pymemcache_hash_client_over_all_nodes(cluster):
    client = HashClient(cluster.endpoints, default_noreply=False, timeout=DEADLINE_SECONDS)
    assert client.set_many(KEYS) == []
    assert client.get_many([*KEYS, "absent"]) == KEYS
    assert_all_nodes_have(cluster, KEYS)
    for number, key in enumerate(KEYS):
        if number % 3 == 0:
            assert client.delete(key) is True
        elif number % 3 == 1:
            value, token = client.gets(key)
            assert client.cas(key, value + b"!", token) is True
            assert client.cas(key, b"late", token) is False
        else:
            assert client.append(key, b"?") is True
    expected = {
        key: value + (b"!" if number % 3 == 1 else b"?")
        for number, (key, value) in enumerate(KEYS.items())
        if number % 3 != 0
    }
    assert client.get_many(list(KEYS)) == expected
    assert_all_nodes_have(cluster, expected)
    client.close()


def test_pymemcache_pooled_client_on_one_node(cluster):
    client = PooledClient(
        cluster.endpoints[0], default_noreply=False, timeout=DEADLINE_SECONDS, max_pool_size=8
    )
    failures = []

    def work(worker):
        try:
            for turn in range(200):
                key = f"pooled{worker}-{turn % 20}"
                assert client.set(key, b"%d" % turn) is True
                assert client.get(key) == b"%d" % turn
                client.incr("total", 1)
        except Exception as failure:  # shown by the assertion below, in the test's own thread
            failures.append(failure)

    client.set("total", b"0")
    threads = [threading.Thread(target=work, args=[worker]) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_all_nodes_have(cluster, {"total": b"1600"})
    client.close()


@pytest.mark.parametrize("behaviors", [{}, {"ketama": True}, {"ketama_weighted": True}, {"distribution": "consistent"}])
def test_libmemcached_over_all_nodes(cluster, behaviors):
    client = pylibmc.Client(cluster.addresses, behaviors={"cas": True, "tcp_nodelay": True, **behaviors})
    assert client.set_multi(KEYS) == []
    assert client.get_multi(list(KEYS)) == KEYS
    assert_all_nodes_have(cluster, KEYS)
    client.set("n", 1)
    assert client.incr("n", 4) == 5
    assert client.delete("key0") is True
    assert client.get("key0") is None
    client.disconnect_all()


def test_python_memcached_over_all_nodes(cluster):
    client = memcache.Client(cluster.addresses, cache_cas=True)
    assert client.set_multi(KEYS) == []
    assert client.get_multi(list(KEYS)) == KEYS
    assert_all_nodes_have(cluster, KEYS)
    assert client.gets("key1") == b"value1"
    assert client.cas("key1", b"new")
    assert_all_nodes_have(cluster, {"key1": b"new"})
    client.disconnect_all()


def test_aiomcache_on_every_node(cluster):
    async def body():
        clients = [aiomcache.Client(*endpoint, pool_size=4) for endpoint in cluster.endpoints]

        async def work(number, key, value):
            writer, reader = clients[number % NODES], clients[(number + 1) % NODES]
            await writer.set(key.encode(), value)
            assert await reader.get(key.encode()) == value

        await asyncio.gather(*(work(n, key, value) for n, (key, value) in enumerate(KEYS.items())))
        for client in clients:
            await client.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE_SECONDS))
    assert_all_nodes_have(cluster, KEYS)


def test_clients_that_hash_differently_share_one_cache(cluster):
    """Behind single servers each would look for the other's values in the wrong place."""
    rendezvous = HashClient(cluster.endpoints, default_noreply=False, timeout=DEADLINE_SECONDS)
    ketama = pylibmc.Client(cluster.addresses, behaviors={"ketama": True})
    modulo = memcache.Client(cluster.addresses)
    for number, (key, value) in enumerate(KEYS.items()):
        [rendezvous, ketama, modulo][number % 3].set(key, value)
    assert rendezvous.get_many(list(KEYS)) == KEYS
    assert ketama.get_multi(list(KEYS)) == KEYS
    assert modulo.get_multi(list(KEYS)) == KEYS
    rendezvous.close()
    ketama.disconnect_all()
    modulo.disconnect_all()


def discover(endpoint):
    """The endpoints of all nodes, asked for as pymemcache's AWSElastiCacheHashClient does (it is in pymemcache's
    repository, but not in its releases)."""
    with plain_client(endpoint) as client:
        *_, nodes = client.raw_command(b"config get cluster", end_tokens=b"\n\r\nEND\r\n").splitlines()
    fields = [node.split("|") for node in nodes.decode().split(" ")]
    return [(address, int(port)) for _host, address, port in fields]


def test_nodes_are_discovered(cluster):
    for endpoint in cluster.endpoints:
        assert sorted(discover(endpoint)) == sorted(cluster.endpoints)
    client = HashClient(discover(cluster.endpoints[0]), default_noreply=False, timeout=DEADLINE_SECONDS)
    assert client.set_many(KEYS) == []
    assert_all_nodes_have(cluster, KEYS)
    client.close()


LOAD_PROCESSES = 4
# Each goes on for this time, and until it has executed this number of operations.
LOAD_SECONDS = 3
LOAD_OPERATIONS = 500


def load(number, endpoints, results):
    """Reads and writes as fast as it can, and checks everything it reads; sends what it counted, or what was wrong."""
    generator = random.Random(number)
    try:
        client = Client(endpoints[number % len(endpoints)], default_noreply=False, timeout=DEADLINE_SECONDS)
        expected, counted, operations = {}, 0, 0
        end = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < end or operations < LOAD_OPERATIONS:
            keys = [f"load{number}-{generator.randrange(500)}" for _ in range(10)]
            for key in keys[:2]:
                value = f"{key}:{operations}:".encode() + b"x" * generator.randrange(2000)
                assert client.set(key, value), key
                expected[key] = value
            found = client.get_many(keys)
            assert found == {key: expected[key] for key in keys if key in expected}, keys
            client.incr("shared", 1)
            counted += 1
            operations += 13
        client.close()
        results.put((counted, operations, None))
    except Exception as failure:  # another process' failure must become this test's
        results.put((0, 0, repr(failure)))


def test_load_from_several_processes_reads_no_wrong_value(cluster):
    with plain_client(cluster.endpoints[0]) as client:
        client.set("shared", b"0")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=load, args=[number, cluster.endpoints, results], daemon=True)
        for number in range(LOAD_PROCESSES)
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=LOAD_SECONDS + DEADLINE_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    assert [failure for _, _, failure in answers if failure] == []
    assert_all_nodes_have(cluster, {"shared": b"%d" % sum(counted for counted, _, _ in answers)})


def test_clients_go_on_after_a_node_has_died(own_cluster):
    key = next(key for key in KEYS if own_cluster.owner_of(key.encode()) == 2)
    client = HashClient(
        own_cluster.endpoints, default_noreply=False, timeout=DEADLINE_SECONDS, retry_attempts=0, dead_timeout=60
    )
    client.set(key, b"old")
    own_cluster.kill(2)

    def stored():
        try:
            return client.set(key, b"new")
        except (MemcacheError, OSError):
            return False

    poll(stored, "another node takes the key over")
    assert client.get(key) == b"new"
    assert_all_nodes_have(own_cluster, {key: b"new"})
    client.close()


def test_a_dead_owners_keys_are_a_miss_and_an_error(own_cluster):
    key = next(key for key in KEYS if own_cluster.owner_of(key.encode()) == 2)
    with plain_client(own_cluster.endpoints[0]) as client:
        client.set(key, b"old")
        own_cluster.kill(2)
        assert client.get(key) is None
        with pytest.raises(MemcacheServerError):
            client.set(key, b"new")
