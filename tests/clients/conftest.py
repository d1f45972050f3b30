"""Fixtures: a server for each test file, emptied before each test, and more servers on request."""

import pytest

from server import Server


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
