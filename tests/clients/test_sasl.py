"""Logging in with the binary protocol (SASL), against the users of `-Y`. memcached's `-Y` turns that protocol off."""

import bmemcached
import pylibmc
import pytest

from scripted import run

USER, PASSWORD = "ann", "an apple"


@pytest.fixture
def locked(start_server, tmp_path):
    users = tmp_path / "users"
    users.write_text(f"{USER}:{PASSWORD}\n")
    return start_server("-Y", str(users))


def test_bmemcached(locked):
    client = bmemcached.Client((locked.address,), USER, PASSWORD)
    assert client.set("k", "v") is True
    assert client.get("k") == "v"
    with pytest.raises(bmemcached.exceptions.MemcachedException, match="Auth failure"):
        bmemcached.Client((locked.address,), USER, "another").get("k")


def test_pylibmc(locked):
    client = pylibmc.Client([locked.address], binary=True, username=USER, password=PASSWORD)
    assert client.set("k", "v") is True
    assert client.get("k") == "v"
    with pytest.raises(pylibmc.Error):
        pylibmc.Client([locked.address], binary=True, username=USER, password="another").set("k", "v")


@pytest.mark.parametrize("client", ["dalli", "memjs"])
def test_scripts(locked, client):
    run(client, locked.address, USER, PASSWORD)


def test_php(locked):
    run("php", *map(str, locked.endpoint), USER, PASSWORD)
