"""Fixtures: a server for each test file, emptied before each test, and more servers on request."""

import glob
import os

import pytest

from server import Server

# pylibmc's wheel brings a libsasl that looks for its mechanisms elsewhere than Debian installs them, and does so as soon
# as it is imported.
os.environ.setdefault("SASL_PATH", ":".join(glob.glob("/usr/lib/*/sasl2")))


@pytest.fixture(scope="module")
def shared_server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server):
    """A server that holds no items; its counters go on from test to test."""
    assert shared_server.ask(b"flush_all\r\n") == b"OK\r\n"
    return shared_server


@pytest.fixture
def start_server():
    """Starts servers of the test's own, with the arguments given; stops them at the end."""
    started = []

    def start(*arguments, **options):
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()
