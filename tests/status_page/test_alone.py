"""The status page of a node that is alone: what it shows, how it looks, and what it does when the node is gone."""

import contextlib
import re

import pytest
from pymemcache.client.base import Client

from browser import PHONE
from cluster import free_port
from colours import faint_texts
from load import load
from server import DEADLINE_SECONDS, HOST, Server

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
        for chart in range(6):
            page.wait_for(lambda: chart_line(page, chart).count("L") > 1, f"a line is in chart {chart}")
        page.wait_for(lambda: re.fullmatch(r"p50\d.* [µm]s", page.texts(".chart li")[3]), "latencies are told")
    assert page.text("#updated") != before


def test_asks_nobody_else_and_complains_of_nothing(page, server):
    page.wait_for(lambda: chart_line(page, 0), "the page has polled twice")
    assert page.complaints() == []
    asked = {url for url in page.requests() if not url.startswith("data:image/svg+xml,")}
    assert asked == {server.http + path for path in ["", "api/v1/cluster", "api/v1/stats?scope=cluster"]}


def test_shows_no_part_of_a_cluster(page):
    assert page.texts("[data-cluster]") == []
    assert "Epoch" not in page.text("#facts")


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
    assert page.driver.execute_async_script(asked) <= 2
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
