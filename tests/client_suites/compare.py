"""Runs a client's own published test suite against memcached and against filbert; the results must be the same.

    SERVER_BIN=target/release/filbert target/venv/bin/python tests/client_suites/compare.py pymemcache

Exits with 0 when each test ends the same way on both servers. The archives come from `tests/run`.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

from server import Server, server_under_test  # noqa: E402
from suites import SUITES  # noqa: E402

ARCHIVES = pathlib.Path(os.environ.get("FILBERT_TEST_ARCHIVES", HERE.parent.parent / "target" / "client_suites"))

# The suites take a few seconds; the bound is for a client that waits for a reply that never comes.
SUITE_SECONDS = 300


def run_suite(suite, binary, directory):
    """Each test's outcome against one server: `{"module::test": "passed" | "skipped" | "failed: ..."}`."""
    archive = ARCHIVES / f"{suite.archive}.tar.gz"
    if not archive.exists():
        sys.exit(f"{archive} is missing: run tests/run, which downloads it")
    shutil.unpack_archive(archive, directory)
    unpacked = directory / suite.archive
    report = directory / "report.xml"
    server = Server(binary=binary)
    try:
        suite.prepare(unpacked, server.port)
        options = suite.options(server.port)
        left_out = [argument for test in suite.left_out for argument in ("--deselect", test)]
        done = subprocess.run(
            # The suites' own settings ask for plugins (coverage) that have no place here.
            [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", f"--junitxml={report}",
             *options, *left_out, *suite.paths],
            cwd=unpacked,
            env={**os.environ, **suite.environment(server.port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SUITE_SECONDS,
        )
    finally:
        server.stop()
    # 0: all passed, 1: some failed. Anything else: pytest did not get as far as running the tests.
    if done.returncode not in (0, 1):
        sys.exit(f"pytest exited with {done.returncode} on {suite.archive}:\n{done.stdout.decode(errors='replace')}")
    return outcomes(report)


def outcomes(report):
    found = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if problem is None:
            found[name] = "passed"
        elif problem.tag == "skipped":
            found[name] = "skipped"
        else:
            found[name] = "failed: " + (problem.text or "").strip()
    return found


def kind(outcome):
    return outcome.partition(":")[0]


def compare(name):
    """Prints what differs; returns whether nothing does."""
    suite = SUITES[name]
    reference = shutil.which("memcached") or sys.exit("memcached is missing: run tests/run, which installs it")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        expected = run_suite(suite, reference, pathlib.Path(first))
        actual = run_suite(suite, server_under_test(), pathlib.Path(second))
    passed = sum(outcome == "passed" for outcome in expected.values())
    print(f"{suite.archive}: {passed} of {len(expected)} tests pass on {reference}")
    for test, outcome in expected.items():
        if kind(outcome) == "failed":
            print(f"  fails on memcached too: {test}: {outcome.splitlines()[-1]}")
    if passed < suite.at_least:
        print(f"  expected at least {suite.at_least}")
        return False
    differing = [test for test in {**expected, **actual}
                 if kind(expected.get(test, "absent")) != kind(actual.get(test, "absent"))]
    for test in differing:
        print(f"\n{test}\n  on memcached: {expected.get(test, 'absent')}\n  on {server_under_test()}: "
              f"{actual.get(test, 'absent')}")
    return not differing


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SUITES:
        sys.exit(f"usage: compare.py {' | '.join(SUITES)}")
    sys.exit(0 if compare(sys.argv[1]) else 1)
