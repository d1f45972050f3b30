"""The command line tools of libmemcached (Debian: libmemcached-tools), run as an operator runs them."""

import re
import subprocess

import pytest

from server import poll

# Each tool ends by itself in well under a second; the bound is for one that hangs on a reply that never comes.
TOOL_SECONDS = 60


def run(tool, *arguments, expect=0, **options):
    """Runs one tool to its end; returns what it printed. Fails when the exit code is not `expect`."""
    done = subprocess.run(
        [tool, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS, **options
    )
    assert done.returncode == expect, f"{tool} {arguments} exited with {done.returncode}: {done.stdout} {done.stderr}"
    return done.stdout.decode()


@pytest.fixture
def tool(server):
    """Runs a tool against the server under test."""
    return lambda name, *arguments, **options: run(name, f"--servers={server.address}", *arguments, **options)


@pytest.fixture
def stored(tool, tmp_path):
    """Puts files on the server with memccp, which names each key after its file."""

    def store(**contents):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            tool("memccp", str(tmp_path / name))

    return store


# The names as memccapable prints them; the list is here so that a test it drops does not go unnoticed.
CAPABILITIES = [
    "version", "quit", "verbosity", "set", "set noreply", "get", "gets", "mget", "flush", "flush noreply",
    "add", "add noreply", "replace", "replace noreply", "cas", "cas noreply", "delete", "delete noreply",
    "incr", "incr noreply", "decr", "decr noreply", "append", "append noreply", "prepend", "prepend noreply", "stat",
]


BINARY_CAPABILITIES = [
    "noop", "quit", "quitq", "set", "setq", "flush", "flushq", "add", "addq", "replace", "replaceq", "delete",
    "deleteq", "get", "getq", "getk", "getkq", "incr", "incrq", "decr", "decrq", "version", "append", "appendq",
    "prepend", "prependq", "stat",
]


def test_memccapable(server):
    printed = run("memccapable", "-h", "127.0.0.1", "-p", str(server.port))
    for protocol, names in [("ascii", CAPABILITIES), ("binary", BINARY_CAPABILITIES)]:
        passed = re.findall(rf"^{protocol} (.+?) +\[(\w+)\]$", printed, re.MULTILINE)
        assert passed == [(name, "pass") for name in names], printed


def test_tools_in_the_binary_protocol(tool, tmp_path):
    content = bytes(range(256)) * 2000
    (tmp_path / "blob").write_bytes(content)
    tool("memccp", "--binary", str(tmp_path / "blob"))
    tool("memccat", "--binary", f"--file={tmp_path / 'back'}", "blob")
    assert (tmp_path / "back").read_bytes() == content
    tool("memcrm", "--binary", "blob")
    assert tool("memccat", "--binary", "blob", expect=1) == ""
    tool("memccp", "--binary", str(tmp_path / "blob"))
    tool("memcflush", "--binary")
    assert tool("memccat", "--binary", "blob", expect=1) == ""


def test_memccp_and_memccat_move_a_file(tool, stored):
    stored(motd=b"hello\nworld\n")
    assert tool("memccat", "motd") == "hello\nworld\n\n"
    assert tool("memccat", "absent", expect=1) == ""


def test_memccat_writes_a_binary_file_back(tool, stored, tmp_path):
    content = bytes(range(256)) * 2000 + b"\r\nEND\r\n"
    stored(blob=content)
    tool("memccat", f"--file={tmp_path / 'back'}", "blob")
    assert (tmp_path / "back").read_bytes() == content


def test_memccp_sets_flags_and_expiry(tool, server, tmp_path):
    (tmp_path / "k").write_bytes(b"v")
    tool("memccp", "--flag=7", "--expire=1000", str(tmp_path / "k"))
    assert server.ask(b"mg k f t v\r\n", end=b"v\r\n").startswith(b"VA 1 f7 t")
    assert server.ask(b"mg k t\r\n") in (b"HD t1000\r\n", b"HD t999\r\n", b"HD t998\r\n")


def test_memccp_add_and_replace(tool, server, tmp_path):
    (tmp_path / "k").write_bytes(b"1")
    tool("memccp", "--replace", str(tmp_path / "k"), expect=1)
    tool("memccp", "--add", str(tmp_path / "k"))
    tool("memccp", "--add", str(tmp_path / "k"), expect=1)
    (tmp_path / "k").write_bytes(b"2")
    tool("memccp", "--replace", str(tmp_path / "k"))
    assert server.ask(b"get k\r\n", end=b"END\r\n") == b"VALUE k 0 1\r\n2\r\nEND\r\n"


def test_memccp_of_a_file_over_the_limit_fails(tool, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 2_000_000)
    tool("memccp", str(tmp_path / "large"), expect=1)
    tool("memcexist", "large", expect=1)


def test_memcexist(tool, stored):
    stored(present=b"v")
    tool("memcexist", "present")
    tool("memcexist", "absent", expect=1)


def test_memcexist_leaves_no_trace(tool, server):
    tool("memcexist", "absent", expect=1)
    assert server.ask(b"get absent\r\n", end=b"END\r\n") == b"END\r\n"


def test_memctouch(tool, stored, server):
    stored(k=b"v")
    tool("memctouch", "--expire=500", "k")
    assert re.fullmatch(rb"HD t(500|49\d)\r\n", server.ask(b"mg k t\r\n"))
    tool("memctouch", "--expire=500", "absent", expect=1)


def test_memcrm(tool, stored):
    stored(a=b"v", b=b"v", c=b"v")
    tool("memcrm", "a", "b")
    tool("memcexist", "a", expect=1)
    tool("memcexist", "c")
    tool("memcrm", "a", expect=1)


def test_memcdump_lists_the_keys(tool, stored):
    assert tool("memcdump") == ""
    stored(a=b"1", b=b"2", c=b"3" * 500)
    # `stats cachedump` of memcached leaves out items that its maintainer thread has not sorted yet.
    poll(lambda: sorted(tool("memcdump").split()) == ["a", "b", "c"], "the keys are listed")


def test_memcflush(tool, stored):
    stored(k=b"v")
    tool("memcflush")
    tool("memcexist", "k", expect=1)


def test_memcping(tool, start_server):
    tool("memcping")
    gone = start_server()
    gone.stop()
    run("memcping", f"--servers={gone.address}", expect=1)


def fields(printed):
    """`name: value` lines, as memcstat indents them below the server's name."""
    return dict(re.findall(r"^\t(\S+): (.*)$", printed, re.MULTILINE))


# What monitoring reads from `stats`; the types are those the readers parse.
INTEGERS = """
    pid uptime time pointer_size max_connections curr_connections total_connections rejected_connections
    connection_structures cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed
    delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes
    hash_is_expanding bytes curr_items total_items evictions reclaimed expired_unfetched evicted_unfetched
    malloc_fails lru_crawler_starts crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold
    moves_to_warm moves_within_lru direct_reclaims log_worker_dropped
""".split()


def test_memcstat(tool, server):
    printed = tool("memcstat")
    assert printed.startswith(f"Server: 127.0.0.1 ({server.port})\n")
    stats = fields(printed)
    assert [name for name in INTEGERS if not re.fullmatch(r"\d+", stats.get(name, ""))] == []
    assert re.fullmatch(r"\d+\.\d+", stats["rusage_user"]) and re.fullmatch(r"\d+\.\d+", stats["rusage_system"])
    assert re.fullmatch(r"[1-9]\d*\.\d+\.\d+", stats["version"])


SETTINGS = """
    maxbytes maxconns tcpport udpport inter verbosity evictions domain_socket cas_enabled num_threads item_size_max
    tcp_backlog binding_protocol flush_enabled growth_factor chunk_size lru_crawler
""".split()


def test_memcstat_settings(tool):
    settings = fields(tool("memcstat", "settings"))
    assert [name for name in SETTINGS if name not in settings] == []
    assert settings["inter"] == "127.0.0.1" and settings["maxconns"] == "1024" and settings["evictions"] == "on"


def test_memcstat_items_and_slabs(start_server):
    # A server of its own: flushed items go on counting until something comes across them.
    server = start_server()
    assert server.ask(b"set k 0 0 1\r\nv\r\n") == b"STORED\r\n"
    items = fields(run("memcstat", f"--servers={server.address}", "items"))
    assert [value for name, value in items.items() if name.endswith(":number")] == ["1"], items
    slabs = fields(run("memcstat", f"--servers={server.address}", "slabs"))
    assert slabs["active_slabs"] == "1"
    assert int(slabs["total_malloced"]) > 0


def test_memcstat_analyzes(tool):
    assert re.search(r"Number of Servers Analyzed +: 1\n", tool("memcstat", "--analyze"))


@pytest.mark.parametrize("operation", ["get", "set", "mget"])
@pytest.mark.parametrize("flags", [[], ["--non-blocking", "--tcp-nodelay"], ["--noreply"]], ids=repr)
def test_memcslap(tool, operation, flags):
    printed = tool("memcslap", "--concurrency=2", "--execute-number=200", f"--test={operation}", *flags)
    assert "Time total" in printed


def test_memcaslap(server):
    # Ends after 20,000 operations, not after a time; -v 0.2 checks one value in five, -e 0.1 sets expiries.
    printed = run("memcaslap", "-s", server.address, "-T", "1", "-c", "4", "-x", "20000", "-v", "0.2", "-e", "0.1")
    counts = dict(re.findall(r"^(\w+): (\d+)$", printed, re.MULTILINE))
    assert int(counts["cmd_get"]) + int(counts["cmd_set"]) == 20_000
    assert counts["get_misses"] == "0", printed
    assert counts.get("vef_failed", "0") == "0" and counts.get("vef_miss", "0") == "0", printed


def test_two_servers(server, start_server, tmp_path):
    other = start_server()
    servers = f"--servers={server.address},{other.address}"
    names = [f"file{i}" for i in range(20)]
    for name in names:
        (tmp_path / name).write_text(name)
    run("memccp", servers, *(str(tmp_path / name) for name in names))
    assert [run("memccat", servers, name).strip() for name in names] == names
    poll(lambda: sorted(run("memcdump", servers).split()) == sorted(names), "the keys of both are listed")
    assert run("memcstat", servers).count("Server: ") == 2
