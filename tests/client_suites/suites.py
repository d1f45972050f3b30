"""The published test suites: where each lives in its source distribution and how it is pointed at a server."""

import dataclasses
import pathlib
import re
import typing

from server import HOST


@dataclasses.dataclass(frozen=True)
class Suite:
    # The name and version of the source distribution, as its archive is called.
    archive: str
    # The tests, relative to the unpacked archive.
    paths: list[str]
    # How many tests must pass on memcached itself; fewer means that the suite did not really run.
    at_least: int
    # Options for pytest, from the server's port.
    options: typing.Callable[[int], list[str]] = lambda port: []
    # Environment variables, from the server's port.
    environment: typing.Callable[[int], dict[str, str]] = lambda port: {}
    # Edits the unpacked archive, given its path and the server's port.
    prepare: typing.Callable[[pathlib.Path, int], None] = lambda path, port: None
    # Tests and files that memcached itself cannot pass, with the reason.
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


# `tests/utils.py` was left out of the archive (python-memcached 1.62); these are its contents as far as they are used.
PYTHON_MEMCACHED_UTILS = '''
import contextlib
import io
import sys


@contextlib.contextmanager
def captured_stderr():
    previous, sys.stderr = sys.stderr, io.StringIO()
    try:
        yield sys.stderr
    finally:
        sys.stderr = previous
'''


def prepare_python_memcached(path, port):
    tests = path / "tests"
    (tests / "__init__.py").touch()
    (tests / "utils.py").write_text(PYTHON_MEMCACHED_UTILS)
    live = tests / "test_memcache.py"
    text, count = re.subn(r"127\.0\.0\.1:11211", f"{HOST}:{port}", live.read_text())
    assert count, "the suite no longer names its server"
    live.write_text(text)


SUITES = {
    "pymemcache": Suite(
        archive="pymemcache-4.0.0",
        paths=["pymemcache/test/test_integration.py"],
        at_least=90,
        # The `tls` fixtures need a second server on a fixed port; TLS has tests of its own.
        options=lambda port: ["--server", HOST, "--port", str(port), "-m", "integration", "-k", "not tls"],
    ),
    "pylibmc": Suite(
        archive="pylibmc-1.6.3",
        paths=["tests"],
        at_least=30,
        environment=lambda port: {"MEMCACHED_HOST": HOST, "MEMCACHED_PORT": str(port)},
        left_out={"tests/test_autoconf.py": "needs Amazon ElastiCache's `config get` on port 11211"},
    ),
    "python-memcached": Suite(
        archive="python-memcached-1.62",
        paths=["tests"],
        at_least=25,
        prepare=prepare_python_memcached,
    ),
}
