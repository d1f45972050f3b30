"""Fixtures: a browser and a server for each test file."""

import pytest

from browser import DESKTOP, Browser
from server import Server


@pytest.fixture(scope="module")
def shared_browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(shared_browser):
    """A browser that shows nothing, on a desktop, in light colours."""
    shared_browser.resize(*DESKTOP)
    shared_browser.prefer("light")
    return shared_browser


@pytest.fixture(scope="module")
def server():
    """A server that is alone; what tests store in it goes on from test to test."""
    server = Server()
    yield server
    server.stop()
