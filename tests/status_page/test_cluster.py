"""The status page of a cluster's members: all of them are shown, and which come and which go."""

import re
import time

import pytest
from pymemcache.client.base import Client

from browser import PHONE
from cluster import Cluster
from colours import faint_texts
from load import load

NODES = 3
# As long as by default: what the page shows meanwhile is to be seen.
LEASE_SECONDS = 5
# The page asks every two seconds; the rest is for a loaded machine.
SLACK_SECONDS = 30
# At a rate at which what one node holds takes a minute, and is seen on its way.
MOVE_RATE = "20k"
MOVED_ITEMS = 60
MOVED_VALUE = b"v" * 40_000
TAKES_OVER = r"node-2 takes over [\d,]+ slots: \d+ items? left, about (\d+ (s|min) ?)+\."
HANDS_OVER = r"node-1 hands over [\d,]+ slots\."


@pytest.fixture(scope="module")
def shared_cluster():
    cluster = Cluster(NODES)
    yield cluster
    cluster.stop()


@pytest.fixture
def page(browser, shared_cluster):
    """A browser that shows the page of the second node."""
    browser.open(shared_cluster.nodes[1].http)
    browser.wait_for_text("#health", "All 3 members answer")
    return browser


def column(browser, table, name):
    """The cells of a column, by member."""
    rows = browser.texts(f"{table} td:first-child b")
    return dict(zip(rows, browser.texts(f"{table} td[data-label='{name}']")))


def test_shows_every_member(page, shared_cluster):
    names = ["node-1", "node-2", "node-3"]
    assert list(column(page, "#members", "State")) == names
    assert set(column(page, "#members", "State").values()) == {"up"}
    assert sum(float(share.rstrip("%")) for share in column(page, "#members", "Share").values()) == pytest.approx(100, abs=0.2)
    assert page.texts("#shares b") == names
    addresses = page.texts("#members td:first-child small")
    assert addresses == shared_cluster.addresses
    assert [text for text in page.texts("#members td:first-child") if "this node" in text][0].startswith("node-2")
    assert set(column(page, "#peers", "State")) == {"node-1", "node-3"}
    of_node, of_cluster = (dict(zip(page.texts(f"{list} dt"), page.texts(f"{list} dd"))) for list in ["#facts", "#cluster-facts"])
    assert (of_node["Standing"], of_node["etcd"], of_node["Memory"][-6:]) == ("serving", "connected", "64 MiB")
    assert (of_cluster["Settled"], of_cluster["Members"], of_cluster["Memory"][-7:]) == ("yes", "3", "192 MiB")
    assert int(of_cluster["Epoch"]) > 0


def test_members_lead_to_their_own_pages(page, shared_cluster):
    def links():
        return page.run("return [...document.querySelectorAll('#members a[href]')].map(link => link.href)")

    others = [shared_cluster.nodes[number].http for number in (0, 2)]
    page.wait_for(lambda: links() == others, "each but this node is a link")
    page.driver.find_element("css selector", "#members a[href]").click()
    page.wait_for_text("#node-title", "node-1")


def test_only_addresses_become_links(page):
    expected = {
        "pageOf('127.0.0.1:11280')": "http://127.0.0.1:11280/",
        "pageOf('[::1]:11280')": "http://[::1]:11280/",
        "pageOf('cache-1.example:80')": "http://cache-1.example:80/",
        "pageOf('user@host:80')": None,
        "pageOf('javascript:alert(1)')": None,
        "pageOf('a/b:80')": None,
        "pageOf(undefined)": None,
    }
    assert {expression: page.run(f"return {expression}") for expression in expected} == expected


def test_tells_of_moves_in_words(page):
    still = {"slots_in": 0, "slots_out": 0, "items_left": 0, "seconds_left": 0}

    def told(standing="serving", **moves):
        cluster = {"node": "n", "standing": standing, "moves": {**still, **moves}}
        return page.run("return movesOf(arguments[0])", cluster).replace("\u00a0", " ")

    assert told() == ""
    assert told(slots_in=21845, items_left=12345, seconds_left=75) == "n takes over 21,845 slots: 12.3K items left, about 1 min 15 s."
    assert told(slots_in=1, items_left=1) == "n takes over 1 slot: 1 item left."
    assert told(slots_out=300) == "n hands over 300 slots."
    assert told("leaving", slots_out=300) == "n hands over 300 slots before it stops."
    assert told(slots_in=2, slots_out=3) == "n takes over 2 slots: 0 items left. n hands over 3 slots."
    assert page.run("return movesOf({ node: 'n', standing: 'alone', moves: null })") == ""
    assert page.text("#moves") is None, "nothing moves"


def test_numbers_move_under_load(page, shared_cluster):
    def all_told(table, name):
        cells = column(page, table, name).values()
        return cells and all(cell not in ("–", "0") for cell in cells)

    with load(shared_cluster.endpoints):
        for table, name in [("#members", "Commands/s"), ("#members", "Items"), ("#peers", "Calls/s")]:
            page.wait_for(lambda: all_told(table, name), f"{name} of all in {table}")
        page.wait_for(lambda: all_told("#peers", "p99"), "latencies of all peers")
    assert page.complaints() == []


def test_fits_a_phone(page):
    page.resize(*PHONE)
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert len(page.texts("#members tbody tr")) == NODES
    heights = page.run("return [...document.querySelectorAll('#members tr, #peers tr')].map(row => row.offsetHeight)")
    assert max(heights) < 45, "a member is one line"
    assert [text.split("\n")[0] for text in page.texts("#members tbody tr")][0].startswith("node-1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(page, scheme):
    page.prefer(scheme)
    assert faint_texts(page)[0] == []


def test_finds_the_owner_of_a_key(page, shared_cluster):
    page.submit("#lookup", "somewhere")
    page.wait_for_text("#lookup", "somewhere")
    owner = shared_cluster.nodes[shared_cluster.owner_of(b"somewhere")]
    page.wait_for_text("#lookup dd", owner.address)


def test_tells_of_a_member_that_dies_and_of_one_that_joins(browser):
    cluster = Cluster(NODES, lease_seconds=LEASE_SECONDS)
    try:
        browser.open(cluster.nodes[0].http)
        browser.wait_for_text("#health", "All 3 members answer")
        killed = time.monotonic()
        cluster.kill(2)
        browser.wait_for(lambda: column(browser, "#members", "State").get("node-3") == "no answer", "node-3 is given up")
        assert "Degraded" in browser.text("#health") and "node-3 does not answer" in browser.text("#health")
        browser.wait_for_text("#events", "node-3 was lost")
        assert time.monotonic() < killed + LEASE_SECONDS + SLACK_SECONDS
        cluster.add("node-4")
        browser.wait_for_text("#events", "node-4 joined the cluster")
        # Whoever comes only now sees it as well.
        browser.open(cluster.nodes[1].http)
        browser.wait_for_text("#health", "node-3 was lost")
        assert re.search(r"node-3 was lost \d+ (s|min).* ago", browser.text("#health"))
        assert browser.run("return document.querySelector('#health').className") == "panel is-warn"
        states = column(browser, "#members", "State")
        assert list(states) == ["node-1", "node-2", "node-4", "node-3"], "the missing one has a row, too"
        assert re.fullmatch(r"lost \d+ (s|min).* ago", states["node-3"])
        assert browser.texts("#shares b") == ["node-1", "node-2", "node-4"]
        events = browser.texts("#events li span")
        lost = next(text for text in events if text.startswith("node-3 was lost"))
        assert events.index("node-3 does not answer") > events.index(lost), "the newest is on top"
        for scheme in ["light", "dark"]:
            browser.prefer(scheme)
            assert faint_texts(browser)[0] == []
        cluster.add("node-3")
        browser.wait_for_text("#health", "All 4 members answer")
    finally:
        cluster.stop()


def test_shows_what_a_new_member_takes_over(browser):
    cluster = Cluster(1, "--move-rate", MOVE_RATE)
    try:
        client = Client(cluster.nodes[0].endpoint)
        for number in range(MOVED_ITEMS):
            client.set(f"moving-{number}", MOVED_VALUE, noreply=False)
        client.close()
        cluster.add("node-2")
        browser.open(cluster.nodes[1].http)
        browser.wait_for(lambda: re.fullmatch(TAKES_OVER, browser.text("#moves") or ""), "node-2 takes over")
        browser.open(cluster.nodes[0].http)
        browser.wait_for(lambda: re.fullmatch(HANDS_OVER, browser.text("#moves") or ""), "node-1 hands over")
        browser.prefer("dark")
        assert faint_texts(browser)[0] == []
        assert browser.complaints() == []
    finally:
        cluster.stop()
