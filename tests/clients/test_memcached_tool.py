"""`memcached-tool`, the script that ships with memcached, run as an operator runs it."""

import re
import subprocess

import pytest

TOOL = "/usr/share/memcached/scripts/memcached-tool"  # Debian's place for it
TOOL_SECONDS = 60


@pytest.fixture
def tool(start_server):
    """Runs a mode of the tool against a server of the test's own, filled by `tool.fill`."""
    return Tool(start_server())


class Tool:
    def __init__(self, server):
        self.server = server

    def __call__(self, *mode):
        done = subprocess.run(
            ["perl", TOOL, self.server.address, *mode],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS,
        )
        assert done.returncode == 0, (mode, done.stderr)
        assert b"uninitialized" not in done.stderr, f"the tool missed a field: {done.stderr}"
        return done.stdout

    def fill(self, **values):
        for key, value in values.items():
            request = b"set %s 5 0 %d\r\n%s\r\n" % (key.encode(), len(value), value)
            assert self.server.ask(request) == b"STORED\r\n"


def table(printed):
    """The two columns of `stats`, `settings` and `sizes`, without the heading."""
    heading, *lines = printed.decode().splitlines()
    assert heading.startswith("#127.0.0.1:")
    return dict(line.split(maxsplit=1) for line in lines)


def test_display(tool):
    tool.fill(small=b"v", other=b"v", large=b"x" * 100_000)
    for printed in (tool("display"), tool()):
        heading, *rows = printed.decode().splitlines()
        assert heading.split() == "# Item_Size Max_age Pages Count Full? Evicted Evict_Time OOM".split()
        assert rows, "no class is in use"
        row = re.compile(r" *\d+ +[\d.]+[BK] +\d+s +\d+ +(\d+) +(?:yes|no) +0 +0 +0")
        assert sum(int(row.fullmatch(line)[1]) for line in rows) >= 3, printed
    assert tool("display").decode().count("\n") >= 2


def test_stats(tool):
    tool.fill(a=b"1", b=b"2")
    stats = table(tool("stats"))
    assert stats["curr_items"] == "2" and stats["cmd_set"] == "2"
    assert re.fullmatch(r"[1-9]\d*\.\d+\.\d+", stats["version"])
    assert int(stats["pid"]) > 0 and float(stats["rusage_user"]) >= 0


def test_settings(tool):
    settings = table(tool("settings"))
    assert settings["maxbytes"] == "67108864" and settings["item_size_max"] == "1048576"
    assert settings["inter"] == "127.0.0.1" and settings["num_threads"].isdigit()


def test_sizes(tool):
    tool.fill(a=b"1")
    sizes = table(tool("sizes"))
    # Off by default; a server that always counts sizes gives `<bytes> <count>` lines instead.
    assert sizes == {"sizes_status": "disabled"} or all(name.isdigit() for name in sizes), sizes


def test_dump_writes_commands_that_restore_the_items(tool, start_server):
    values = {"a": b"1", "b": b"line\r\nadd c 0 0 1\r\n", "key:%2F/ü": "ü".encode(), "large": b"x" * 200_000}
    tool.fill(**values)
    dumped = tool("dump")
    copy = start_server()
    assert copy.ask(dumped + b"mn\r\n", end=b"MN\r\n") == b"STORED\r\n" * len(values) + b"MN\r\n"
    for key, value in values.items():
        key = key.encode()
        expected = b"VALUE %s 5 %d\r\n%s\r\nEND\r\n" % (key, len(value), value)
        assert copy.ask(b"get %s\r\n" % key, end=b"END\r\n") == expected


def test_dump_keeps_expiry_times(tool):
    assert tool.server.ask(b"set k 0 1000 1\r\nv\r\n") == b"STORED\r\n"
    now = int(tool.server.stat("time"))
    [exptime] = re.fullmatch(rb"add k 0 (\d+) 1\r\nv\r\n", tool("dump")).groups()
    assert abs(int(exptime) - now - 1000) <= 5


def test_dump_and_keys_stop_at_a_limit(tool):
    tool.fill(**{f"k{i}": b"v" for i in range(20)})
    # A dump begins with `OK` in 1.6.45, which the script of 1.6.18 takes for one of the lines.
    begins_with_ok = tool.server.ask(b"lru_crawler metadump all\r\n", b"END\r\n").startswith(b"OK\r\n")
    shown = 4 if begins_with_ok else 5
    assert tool("dump", "5").count(b"add k") == shown
    assert len(tool("keys", "5").splitlines()) == shown


def test_keys(tool):
    assert tool("keys") == b""
    tool.fill(a=b"1", b=b"2")
    lines = sorted(tool("keys").decode().splitlines())
    assert [line.split()[0] for line in lines] == ["key=a", "key=b"]
    for line in lines:
        assert re.fullmatch(r"key=\S+ exp=-1 la=\d+ cas=\d+ fetch=(yes|no) cls=\d+ size=\d+( flags=5)?\s*", line), line
