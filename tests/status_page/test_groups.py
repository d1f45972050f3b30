"""The status page of a node with groups: what it shows of each, and how it tells of an origin that fails."""

import contextlib
import http.server
import threading

import pytest
from pymemcache.client.base import Client

from browser import PHONE
from cluster import Cluster
from colours import faint_texts
from server import DEADLINE_SECONDS, HOST, Server

HOSTILE = "<img/src=x/onerror=window.harmed=1>"
LONG = "as-long-as-the-name-of-a-group-may-be." + "x" * 26
WIDTHS = [320, PHONE[0], 600, 768, 1024, 2560]


class Origin(http.server.ThreadingHTTPServer):
    """Has a value for each key that begins with `there`, and fails as long as it is told to."""

    daemon_threads = True
    is_failing = False

    def __init__(self):
        super().__init__((HOST, 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def config(self):
        """The file of a node: a group that asks here, one whose names are odd, and one without an origin."""
        port = self.server_address[1]
        return f"""
            [[group]]
            name = "scores"
            prefix = "scores:"
            negative-ttl = "1m"
            [group.origin]
            http = "http://{HOST}:{port}/{{key}}"
            [[group]]
            name = "{LONG}"
            prefix = "{HOSTILE}"
            [group.origin]
            memcached = ["{HOST}:1"]
            [[group]]
            name = "plain"
            prefix = "plain:"
        """


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = 503 if self.server.is_failing else 200 if self.path.startswith("/there") else 404
        self.send_response(status)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"v")

    def log_message(self, *_):
        pass


@pytest.fixture
def origin():
    origin = Origin()
    yield origin
    origin.stop()


@pytest.fixture
def node(origin, tmp_path):
    """A server with the groups of the origin."""
    config = tmp_path / "filbert.toml"
    config.write_text(origin.config())
    server = Server("--config", str(config))
    yield server
    server.stop()


@pytest.fixture
def client(node):
    with contextlib.closing(Client(node.endpoint, timeout=DEADLINE_SECONDS)) as client:
        yield client


@pytest.fixture
def page(browser, node):
    browser.open(node.http)
    browser.wait_for_text("#health", "Healthy")
    return browser


def cells(browser, group):
    """What the row of a group has, by column."""
    script = """const row = [...document.querySelectorAll('#groups tbody tr')].find(row => row.dataset.id === arguments[0]);
        return row ? [...row.cells].map(cell => [cell.dataset.label, cell.innerText.replaceAll('\u00a0', ' ')]) : []"""
    return dict(browser.run(script, group))


def test_shows_what_came_of_reads_and_loads(page, client):
    assert page.texts("#groups td:first-child b") == [LONG, "plain", "scores"]
    assert cells(page, "scores")["Group"].split() == ["scores", "scores:"]
    assert cells(page, "scores")["Origin"].strip() == "http"
    assert cells(page, "plain")["Origin"].strip() == "none"
    assert cells(page, "scores")["p99"] == "–"
    assert [client.get(f"scores:{key}") for key in ["there", "there-2", "nowhere", "nowhere"]] == [b"v", b"v", None, None]
    page.wait_for(lambda: cells(page, "scores")["Loads"].split("\n") == ["3", "1 absent, 2 stored"], "loads are told")
    found = cells(page, "scores")
    assert "4 misses, 1 negative" in found["Hit ratio"]
    assert found["In flight"].strip() == "0"
    assert found["p50"].endswith("s") and found["p99"].endswith("s")
    assert page.text("#groups-note") is None
    assert page.complaints() == []


def test_tells_what_is_known_and_no_more(page):
    expected = {
        "hitRatio({ hits: 3, misses: 1 })": 0.75,
        "hitRatio({ hits: 0, misses: 0 })": None,
        "hitRatio({ misses: 1 })": None,
        "readsOf({ misses: 1, negative_hits: 0, stale: 0, timeouts: 0 })": "– hits, 1 misses",
        "readsOf({ hits: 12345, misses: 3, negative_hits: 1, stale: 2, timeouts: 1 })": "12.3K hits, 3 misses, 1 negative, 2 stale, 1 timed out",
        "memoryOf({})": "–",
        "memoryOf({ bytes: 2048, max_bytes: null })": "2 KiB",
        "memoryOf({ bytes: 2048, max_bytes: 1048576 })": "2 KiB of 1 MiB",
        "waitingOf({ waiting: 0 })": "",
        "waitingOf({ waiting: 2 })": "2 waiting",
    }
    plain = "const told = %s; return typeof told === 'string' ? told.replaceAll('\u00a0', ' ') : told"
    assert {expression: page.run(plain % expression) for expression in expected} == expected


def test_tells_of_an_origin_that_fails_until_it_answers(page, client, origin):
    origin.is_failing = True

    def shows(word):
        """Whether the row and the sentence say so, while clients go on asking."""
        client.get("scores:there")
        return cells(page, "scores")["Origin"].strip() == word

    page.wait_for(lambda: shows("http fails"), "the origin is marked")
    mark = "return document.querySelector('#groups .state.warn use').getAttribute('href')"
    assert page.run(mark) == "#icon-warn"
    assert "The origin of the group scores fails" in page.text("#health")
    assert page.run("return document.querySelector('#health').className") == "panel is-warn"
    for scheme in ["light", "dark"]:
        page.prefer(scheme)
        assert faint_texts(page)[0] == []
    origin.is_failing = False
    page.wait_for(lambda: shows("http"), "the origin answers again")
    page.wait_for_text("#health", "Healthy")


def test_names_and_prefixes_are_never_more_than_text(page):
    assert HOSTILE in page.texts("#groups td:first-child small")
    assert page.run("return [window.harmed ?? null, document.images.length, document.scripts.length]") == [None, 0, 1]
    assert page.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_needs_no_scrolling_to_the_side(page, client, width):
    client.get("scores:there")
    page.wait_for(lambda: cells(page, "scores")["Loads"].startswith("1"), "the load is told")
    page.resize(width, 800)
    assert page.run("return document.documentElement.scrollWidth") <= width
    # A name that is too long ends in an ellipsis.
    cut = """return [...document.querySelectorAll('#groups-panel :not(b)')].filter(element => element.getClientRects().length
        && !element.closest('svg') && element.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert page.run(cut) == []


def test_fits_a_phone(page):
    page.resize(*PHONE)
    heights = page.run("return [...document.querySelectorAll('#groups tbody tr')].map(row => row.offsetHeight)")
    assert len(heights) == 3
    assert max(heights) < 45, "a group is one line"


def test_names_members_with_other_groups(browser, origin, tmp_path):
    config = tmp_path / "filbert.toml"
    config.write_text(origin.config())
    cluster = Cluster(1, "-m", "8")
    try:
        cluster.add("node-2", "--config", str(config))
        for node, other in [(1, "node-1"), (0, "node-2")]:
            browser.open(cluster.nodes[node].http)
            browser.wait_for_text("#groups-note", f"{other} has other groups than this node")
            browser.wait_for_text("#health", f"{other} has other groups than this node")
        assert browser.text("#groups") is None, "it has none itself"
        for scheme in ["light", "dark"]:
            browser.prefer(scheme)
            assert faint_texts(browser)[0] == []
    finally:
        cluster.stop()
