"""aiomcache as its users call it: coroutines that share a small pool of connections."""

import asyncio
import functools

import aiomcache
import pytest

from limits import ITEM_SIZE_LIMIT_BYTES, LARGEST_PORTABLE_VALUE_BYTES
from server import DEADLINE_SECONDS


def with_client(test):
    """Runs the coroutine `test(client)` in an event loop, against the server fixture."""

    @functools.wraps(test)
    def run(server, **arguments):
        async def body():
            client = aiomcache.Client(*server.endpoint, pool_size=3)
            try:
                await asyncio.wait_for(test(client, **arguments), DEADLINE_SECONDS)
            finally:
                await client.close()

        asyncio.run(body())

    del run.__wrapped__  # or pytest would look for a fixture called `client`
    return run


async def poll(condition):
    """Waits until the coroutine function `condition` returns something true; `with_client` holds the deadline."""
    while not await condition():
        await asyncio.sleep(0.02)


@with_client
async def test_stores_and_returns_a_value(client):
    assert await client.get(b"k") is None
    assert await client.get(b"k", b"default") == b"default"
    assert await client.set(b"k", b"v") is True
    assert await client.get(b"k") == b"v"
    assert await client.set(b"k", b"") is True
    assert await client.get(b"k") == b""


@with_client
async def test_add_and_replace_depend_on_presence(client):
    assert await client.replace(b"k", b"1") is False
    assert await client.add(b"k", b"2") is True
    assert await client.add(b"k", b"3") is False
    assert await client.replace(b"k", b"4") is True
    assert await client.get(b"k") == b"4"


@with_client
async def test_append_and_prepend_extend_a_present_value(client):
    assert await client.append(b"k", b"x") is False
    await client.set(b"k", b"middle")
    assert await client.append(b"k", b">") is True
    assert await client.prepend(b"k", b"<") is True
    assert await client.get(b"k") == b"<middle>"


@with_client
async def test_cas_lets_one_writer_win(client):
    assert await client.gets(b"k") == (None, None)
    assert await client.cas(b"k", b"x", 1) is False
    await client.set(b"k", b"1")
    value, token = await client.gets(b"k")
    assert value == b"1"
    assert await client.cas(b"k", b"2", token) is True
    assert await client.cas(b"k", b"3", token) is False
    assert await client.get(b"k") == b"2"


@with_client
async def test_incr_and_decr_count(client):
    with pytest.raises(aiomcache.ClientException, match="NOT_FOUND"):
        await client.incr(b"n")
    await client.set(b"n", b"10")
    assert await client.incr(b"n", 5) == 15
    assert await client.decr(b"n", 6) == 9
    assert await client.decr(b"n", 100) == 0


@with_client
async def test_incr_of_text_is_an_error_and_the_client_goes_on(client):
    await client.set(b"k", b"text")
    with pytest.raises(aiomcache.ClientException):
        await client.incr(b"k")
    assert await client.get(b"k") == b"text"


@with_client
async def test_deletes(client):
    assert await client.delete(b"k") is False
    await client.set(b"k", b"v")
    assert await client.delete(b"k") is True
    assert await client.get(b"k") is None


@with_client
async def test_many_keys_at_once(client):
    keys = [b"k%d" % i for i in range(200)]
    assert all(await asyncio.gather(*(client.set(key, key * 20) for key in keys)))
    assert await client.multi_get(*keys, b"absent") == (*(key * 20 for key in keys), None)
    assert await client.multi_get() == ()


@with_client
async def test_touch_and_expiry(client):
    assert await client.touch(b"absent", 10) is False
    await client.set(b"short", b"v", exptime=1)
    await client.set(b"long", b"v", exptime=1000)
    await client.set(b"touched", b"v")
    assert await client.touch(b"touched", 1) is True

    async def only_the_long_one_lives():
        return await client.multi_get(b"short", b"long", b"touched") == (None, b"v", None)

    await poll(only_the_long_one_lives)


@with_client
async def test_unicode_keys_and_binary_values(client):
    every_byte = bytes(range(256))
    for key in ["schlüssel".encode(), "钥匙".encode(), b"k" * 250]:
        assert await client.set(key, every_byte + b"\r\nEND\r\n") is True
        assert await client.get(key) == every_byte + b"\r\nEND\r\n"


@pytest.mark.parametrize("size_bytes", [1, 4096, 65_536, LARGEST_PORTABLE_VALUE_BYTES])
def test_values_of_many_sizes(server, size_bytes):
    @with_client
    async def round_trip(client):
        value = b"\r\n" * (size_bytes // 2) + b"x" * (size_bytes % 2)
        assert await client.set(b"k", value) is True
        assert await client.get(b"k") == value

    round_trip(server)


@with_client
async def test_a_value_over_the_limit_is_refused_and_the_client_goes_on(client):
    await client.set(b"k", b"old")
    for size_bytes in [ITEM_SIZE_LIMIT_BYTES, 2 * ITEM_SIZE_LIMIT_BYTES]:
        with pytest.raises(aiomcache.ClientException):
            await client.set(b"k", b"x" * size_bytes)
        assert await client.get(b"k") is None
    assert await client.set(b"k", b"v") is True


@with_client
async def test_flush_all(client):
    await client.set(b"k", b"v")
    await client.flush_all()
    assert await client.get(b"k") is None
    await client.set(b"k", b"v")
    assert await client.get(b"k") == b"v"


@with_client
async def test_version_and_stats(client):
    version = await client.version()
    stats = await client.stats()  # sent as `stats ` with a trailing space
    assert stats[b"version"] == version
    assert int(stats[b"pid"]) > 0
    settings = await client.stats(b"settings")
    assert settings[b"item_size_max"] == str(ITEM_SIZE_LIMIT_BYTES).encode()


@with_client
async def test_many_coroutines_share_the_pool(client):
    await client.set(b"n", b"0")

    async def work(number):
        key = b"t%d" % number
        for i in range(20):
            await client.set(key, b"%d" % i)
            await client.incr(b"n")
        return await client.get(key)

    assert await asyncio.gather(*(work(number) for number in range(20))) == [b"19"] * 20
    assert await client.get(b"n") == b"400"


def test_flags_come_back_to_the_handlers(server):
    async def body():
        async def decode(value, flags):
            assert flags == 4_294_967_295
            return int(value)

        async def encode(value):
            return str(value).encode(), 4_294_967_295

        client = aiomcache.FlagClient(*server.endpoint, get_flag_handler=decode, set_flag_handler=encode)
        await client.set(b"int", 42)
        await client.set(b"bytes", b"42")
        assert await client.multi_get(b"int", b"bytes") == (42, b"42")
        await client.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE_SECONDS))
