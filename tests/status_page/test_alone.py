"""The status page of a node that is alone: what it shows, how it looks, and what it does when the node is gone."""

import contextlib
import json
import re
import urllib.request

import pytest
from pymemcache.client.base import Client

from browser import PHONE
from cluster import free_port
from colours import faint_texts
from load import load
from server import DEADLINE_SECONDS, HOST, Server, poll

CHARTS = 9
# The place of the chart that tells how long what failed took.
FAILURES = 7

# 320 is what WCAG 2 asks for (1.4.10, Reflow).
WIDTHS = [320, PHONE[0], 600, 768, 1024, 2560]


@pytest.fixture
def page(browser, server):
    """A browser that shows the page of a node that has been heard."""
    browser.open(server.http)
    browser.wait_for_text("#health", "Healthy")
    return browser


def cell(browser, column):
    """What the only row of the table of members has in a column."""
    return browser.text(f"#members td[data-label='{column}']")


def chart_line(browser, chart):
    """The first line of a chart, as SVG's path; empty when nothing is drawn yet."""
    path = "document.querySelectorAll('.chart')[arguments[0]].querySelector('.plot .mark')"
    return browser.run(f"return {path}.getAttribute('d') ?? ''", chart)


def test_reads_quantiles_and_writes_numbers_as_people_do(page):
    expected = {
        # As Prometheus' histogram_quantile.
        "quantile(0.5, { bounds: [1, 2, 4], counts: [0, 10, 0, 0] })": 1.5,
        "quantile(0.75, { bounds: [1, 2, 4], counts: [2, 0, 2, 0] })": 3,
        "quantile(0.99, { bounds: [1, 2, 4], counts: [0, 0, 0, 1] })": 4,
        "quantile(0.99, { bounds: [1, 2, 4], counts: [0, 0, 0, 0] })": None,
        "grownBy({ bounds: [1], counts: [1, 2] }, { bounds: [1], counts: [4, 2] }).counts": [3, 0],
        "[0, 1023, 1024, 1536, 64 * 1024 ** 2, null].map(bytes)": ["0 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "–"],
        "[0, 0.0000015, 0.00094, 0.0123, 2.5].map(latency)": ["0 µs", "1.5 µs", "940 µs", "12.3 ms", "2.5 s"],
        "[0, 0.04, 9.96, 1234, 45678, 1e7].map(rate)": ["0", "<0.1", "10.0", "1,234", "45.7K", "10M"],
        "[0, 0.3333, 1].map(percent)": ["0%", "33.3%", "100%"],
        "[0.4, 59, 61, 3600, 90061].map(duration)": ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"],
        "[0, 1, 1.1, 47, 1000].map(roundUp)": [1, 1, 1.5, 50, 1000],
        "[['a'], ['a', 'b'], ['a', 'b', 'c']].map(listed)": ["a", "a and b", "a, b and c"],
    }
    plain = "JSON.parse(JSON.stringify(%s).replaceAll('\u00a0', ' '))"
    assert {expression: page.run("return " + plain % expression) for expression in expected} == expected


def test_tells_what_the_node_is_doing(page, server):
    assert "This node is alone" in page.text("#health")
    assert page.run("return document.title").startswith("Healthy")
    assert page.texts("#members tbody tr") != []
    with contextlib.closing(Client(server.endpoint, default_noreply=False, timeout=DEADLINE_SECONDS)) as client:
        client.set("known", b"x")
    page.wait_for(lambda: cell(page, "Items") not in ("–", "0"), "the item is counted")
    assert cell(page, "State") == "up"
    assert cell(page, "Memory").endswith("of 64 MiB")


def test_numbers_and_charts_move_under_load(page, server):
    before = page.text("#updated")
    with load([server.endpoint]):
        for column in ["Commands/s", "Hit ratio", "Connections"]:
            page.wait_for(lambda: cell(page, column) not in ("–", "0", "0%"), f"{column} is not nothing")
        for chart in range(CHARTS):
            if chart != FAILURES:
                page.wait_for(lambda: chart_line(page, chart).count("L") > 1, f"a line is in chart {chart}")
        page.wait_for(lambda: re.fullmatch(r"p50\d.* [µm]s", page.texts("#node-charts li")[0]), "latencies are told")
    assert page.text("#updated") != before


def test_asks_nobody_else_and_complains_of_nothing(page, server):
    page.wait_for(lambda: chart_line(page, 0), "the page has polled twice")
    assert page.complaints() == []
    asked = {re.sub(r"seconds=\d+$", "", url) for url in page.requests() if not url.startswith("data:image/svg+xml,")}
    paths = ["", "api/v1/cluster", "api/v1/stats?scope=cluster", "api/v1/history?scope=cluster&", "api/v1/groups"]
    assert asked == {server.http + path for path in paths}


def test_knows_what_was_before_it_was_opened(browser, server):
    def samples():
        with urllib.request.urlopen(server.http + "api/v1/history", timeout=DEADLINE_SECONDS) as answer:
            return json.load(answer)["samples"]

    poll(lambda: len(samples()) > 8, "the node has taken samples while nobody looked")
    browser.open(server.http)
    browser.wait_for_text("#health", "Healthy")
    assert chart_line(browser, 0).count("L") > 5, "all of them are there at once"
    assert any("was started" in text for text in browser.texts("#events li"))


def test_tells_of_writes_that_failed(browser):
    server = Server("-m", "1", "-I", "100k", "-M")
    try:
        with contextlib.closing(server.connect()) as connection:
            for number in range(40):
                connection.sendall(b"set key-%d 0 0 90000\r\n" % number + bytes(90000) + b"\r\n")
                answer = connection.recv(100)
            assert answer.startswith(b"SERVER_ERROR out of memory")
        browser.open(server.http)
        browser.wait_for_text("#events", "Writes fail: memory is full")
        browser.wait_for_text("#health", "memory is full, and nothing may be evicted")
        browser.wait_for_text("#health", "Recovered")
        assert browser.run("return document.querySelector('#health').className") == "panel is-warn", "for a minute"
        browser.wait_for(lambda: chart_line(browser, FAILURES).startswith("M"), "their latency is told apart")
    finally:
        server.stop()


def test_shows_no_part_of_a_cluster_and_no_groups(page):
    assert page.texts("[data-cluster]") == []
    assert page.text("#cluster-facts") is None
    assert page.text("#facts").startswith("Standing")
    assert page.text("#groups-panel") is None


@pytest.mark.parametrize("width", WIDTHS)
def test_needs_no_scrolling_to_the_side(page, width):
    page.resize(width, 800)
    assert page.run("return document.documentElement.scrollWidth") <= width
    cut = """return [...document.querySelectorAll('main *')].filter(element => element.getClientRects().length
        && !element.closest('svg') && element.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert page.run(cut) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(page, scheme):
    page.prefer(scheme)
    faint, seen = faint_texts(page)
    assert (faint, seen > 40) == ([], True)


def test_follows_the_colours_that_are_preferred(page):
    def luminance():
        return page.run("return getComputedStyle(document.body).backgroundColor")

    light = luminance()
    page.prefer("dark")
    assert luminance() != light


def test_rests_while_nobody_looks(page):
    def look(hidden):
        page.run(
            """Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
            document.dispatchEvent(new Event('visibilitychange'))""",
            hidden,
        )

    look(hidden=True)
    # The time of two polls; what was on its way when the page was hidden may still arrive.
    asked = """const done = arguments[0], of = () => performance.getEntriesByType('resource').length, before = of();
        setTimeout(() => done(of() - before), 5000)"""
    assert page.driver.execute_async_script(asked) <= 3
    updated = page.text("#updated")
    look(hidden=False)
    page.wait_for(lambda: page.text("#updated") != updated, "the page goes on")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_says_that_the_node_is_gone_and_goes_on_when_it_is_back(browser, scheme):
    arguments = ["--http-listen", f"{HOST}:{free_port()}"]
    server = Server(*arguments)
    try:
        browser.prefer(scheme)
        browser.open(server.http)
        browser.wait_for_text("#health", "Healthy")
        server.stop()
        browser.wait_for_text("#banner", "does not answer")
        assert browser.text("#health") is None
        assert browser.text("#members") is not None, "what was known is still there"
        assert faint_texts(browser)[0] == []
        server = Server(*arguments)
        browser.wait_for_text("#health", "Healthy")
        assert browser.text("#banner") is None
        browser.wait_for_text("#events", "answers again, after")
    finally:
        server.stop()
