"""The status page of a cluster's members: everybody is shown, and so is who goes and who comes."""

import time

import pytest

from browser import PHONE
from cluster import Cluster
from colours import faint_texts
from load import load

NODES = 3
# As long as by default: what the page shows meanwhile is to be seen.
LEASE_SECONDS = 5
# The page asks every two seconds; the rest is for a loaded machine.
SLACK_SECONDS = 30


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
    facts = dict(zip(page.texts("#facts dt"), page.texts("#facts dd")))
    assert (facts["This node"], facts["Settled"], facts["Members"], facts["etcd"]) == ("serving", "yes", "3", "connected")
    assert int(facts["Epoch"]) > 0


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
        browser.wait_for_text("#events", "node-3 left the cluster")
        assert time.monotonic() < killed + LEASE_SECONDS + SLACK_SECONDS
        assert list(column(browser, "#members", "State")) == ["node-1", "node-2"]
        assert browser.texts("#shares b") == ["node-1", "node-2"]
        browser.wait_for_text("#health", "All 2 members answer")
        cluster.add("node-4")
        browser.wait_for_text("#events", "node-4 joined the cluster")
        browser.wait_for_text("#health", "All 3 members answer")
        events = browser.texts("#events li span")
        assert events.index("node-3 does not answer") > events.index("node-3 left the cluster"), "the newest is on top"
    finally:
        cluster.stop()
