"""Clients that speak the binary protocol without being told to: Dalli (Rails), memjs (Node), and PHP's extension and
session handler. Each script does what an application does, and says what it did not expect."""

from scripted import run


def test_dalli(server):
    run("dalli", server.address)


def test_memjs(server):
    run("memjs", server.address)


def test_php(server):
    run("php", *map(str, server.endpoint))
