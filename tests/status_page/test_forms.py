"""What can be typed into the status page: keys to look up, and the token of a node that asks for one."""

import pytest
from pymemcache.client.base import Client

from server import DEADLINE_SECONDS, Server

HOSTILE = [
    "<script>window.harmed=1</script>",
    '"><img/src=x/onerror=window.harmed=1>',
    "javascript:window.harmed=1",
    "'-window.harmed=1-'",
]
ODD = ["a/b/../c", "a?b=c&d#e", "100%", "%2e%2e", "a+b", "...", "schlüssel", "🐿"]
TOKEN = "sesame-0123456789"


@pytest.fixture
def page(browser, server):
    browser.open(server.http)
    browser.wait_for_text("#health", "Healthy")
    return browser


@pytest.fixture
def client(server):
    client = Client(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS, allow_unicode_keys=True)
    yield client
    client.close()


def answer(browser):
    """The terms of the last answer, by name."""
    names, texts = browser.texts("#lookup dt"), browser.texts("#lookup dd")
    return dict(zip(names, texts))


def look_up(browser, key):
    browser.submit("#lookup", key)
    browser.wait_for(lambda: answer(browser).get("Key") == key, f"an answer about {key}")
    return answer(browser)


def test_tells_of_a_key_that_is_there(page, client):
    client.set("there", b"12345", expire=3600)
    found = look_up(page, "there")
    assert found["Present"] == "yes"
    assert found["Size"] == "5 B"
    assert found["Ends"].startswith(("in 59", "in 1 h"))
    assert found["Owner"].endswith("this node")
    client.set("there", b"1")
    page.driver.find_element("css selector", "#lookup button").click()
    page.wait_for(lambda: answer(page).get("Ends") == "never", "the key does not expire")


def test_tells_of_a_key_that_is_not_there(page):
    found = look_up(page, "nowhere")
    assert found["Present"] == "no"
    assert "Size" not in found


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_is_never_more_than_text(page, client, key):
    client.set(key, b"x")
    assert look_up(page, key)["Present"] == "yes"
    assert page.run("return window.harmed") is None
    assert page.run("return [document.scripts.length, document.images.length, document.links.length]") == [1, 0, 2]
    assert page.complaints() == []


@pytest.mark.parametrize("key", ODD)
def test_any_key_can_be_asked_for(page, client, key):
    client.set(key, b"x")
    assert look_up(page, key)["Present"] == "yes"


@pytest.mark.parametrize("key", [".", ".."])
def test_says_which_keys_a_browser_cannot_ask_for(page, key):
    page.submit("#lookup", key)
    page.wait_for_text("#lookup", "a browser cannot ask for this key")


def test_shows_why_a_key_is_refused(page):
    page.submit("#lookup", "k" * 251)
    page.wait_for_text("#lookup", "Not found out")
    page.wait_for_text("#lookup", "250")
    assert look_up(page, "fine")["Present"] == "no"


def test_tells_of_no_key_where_clients_need_a_password(browser, tmp_path):
    users = tmp_path / "users"
    users.write_text("ann:apple\n")
    server = Server("-Y", str(users))
    try:
        browser.open(server.http)
        browser.wait_for_text("#health", "Healthy")
        browser.submit("#lookup", "a")
        browser.wait_for_text("#lookup", "Not found out: clients need a password")
    finally:
        server.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """The HTTP address of a server that wants a token."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    server = Server("--http-token-file", str(file))
    yield server.http
    server.stop()


def test_asks_for_a_token_and_keeps_it_for_the_session(browser, guarded):
    browser.open(guarded)
    browser.wait_for_text("#token", "This node asks for a token")
    assert browser.text("#health") is None
    browser.submit("#token", TOKEN)
    browser.wait_for_text("#health", "Healthy")
    assert browser.text("#token") is None
    assert look_up(browser, "nowhere")["Present"] == "no"
    browser.driver.refresh()
    browser.wait_for_text("#health", "Healthy")
    assert browser.run("return [Object.values(sessionStorage), localStorage.length, document.cookie]") == [[TOKEN], 0, ""]
    assert TOKEN not in browser.run("return document.documentElement.outerHTML")
    browser.run("sessionStorage.clear()")


def test_says_that_a_token_is_refused(browser, guarded):
    browser.open(guarded)
    browser.wait_for_text("#token", "This node asks for a token")
    browser.submit("#token", "wrong")
    browser.wait_for_text("#token", "refuses this token")
    browser.submit("#token", "two words")
    browser.wait_for_text("#token", "neither blanks")
    browser.submit("#token", TOKEN)
    browser.wait_for_text("#health", "Healthy")
    browser.run("sessionStorage.clear()")
