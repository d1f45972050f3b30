"""Clients that keep a cache busy, so that there is something to see."""

import contextlib
import math
import random
import threading
import time

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from server import DEADLINE_SECONDS

KEYS = 60_000
# Of a client: half of it at the lowest, twice of it at the highest.
TURNS_PER_SECOND = 60
# From one highest to the next.
WAVE_SECONDS = 75


@contextlib.contextmanager
def load(endpoints):
    """Keeps one client busy at each endpoint: it reads ten keys at a time, and writes most of those it misses."""
    done = threading.Event()
    clients = [threading.Thread(target=_work, args=[number, *at, done]) for number, at in enumerate(endpoints)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        done.set()
        for client in clients:
            client.join()


def _work(number, host, port, done):
    generator = random.Random(number)
    client = None
    while not done.wait(_pause_seconds(number)):
        try:
            client = client or Client((host, port), default_noreply=False, timeout=DEADLINE_SECONDS)
            _turn(client, generator)
        except (MemcacheError, OSError):
            client = None  # the node is gone, or a key's owner: the next turn tries again
    if client:
        client.close()


def _turn(client, generator):
    keys = {f"user:{int(generator.paretovariate(0.3)) % KEYS}" for _ in range(10)}
    found = client.get_many(keys)
    for key in keys - found.keys():
        if generator.random() < 0.8:
            client.set(key, generator.randbytes(generator.randrange(100, 3000)), expire=600)
    if client.incr("visits", 1) is None:
        client.add("visits", b"1")


def _pause_seconds(number):
    """Each client's load comes and goes, at its own time."""
    wave = math.sin(2 * math.pi * (time.monotonic() / WAVE_SECONDS + number / 9))
    return 1 / (TURNS_PER_SECOND * 2**wave)
