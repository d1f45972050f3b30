"""netcat, as in countless health checks and runbooks: `printf 'stats\\n' | nc -N host 11211`."""

import re
import subprocess

import pytest

NC_SECONDS = 60


@pytest.fixture
def nc(server):
    """Sends bytes through nc, which then closes its sending side (`-N`); returns all it got until the server closed."""

    def send(request, *options):
        done = subprocess.run(
            ["nc", "-N", *options, *map(str, server.endpoint)],
            input=request, capture_output=True, timeout=NC_SECONDS, check=True,
        )
        return done.stdout

    return send


def test_replies_arrive_although_the_sender_closed_its_side(nc):
    assert nc(b"set k 0 0 5\r\nhello\r\nget k\r\n") == b"STORED\r\nVALUE k 0 5\r\nhello\r\nEND\r\n"


def test_bare_newlines_end_commands(nc):
    assert nc(b"mn \nget absent\nversion\n").startswith(b"MN\r\nEND\r\nVERSION ")


def test_stats_of_a_health_check(nc):
    assert re.search(rb"^STAT uptime \d+\r\n", nc(b"stats\n"), re.MULTILINE)
    assert nc(b"stats\nquit\n").endswith(b"END\r\n")


def test_quit_answers_what_came_before_it(nc):
    assert nc(b"mn\r\nmn\r\nquit\r\nmn\r\n") == b"MN\r\nMN\r\n"


def test_many_pipelined_commands_and_a_half_close(nc):
    value = b"x" * 5000
    stored = b"".join(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(value), value) for i in range(400))
    fetched = b"".join(b"get k%d\r\n" % i for i in range(400))
    expected = b"STORED\r\n" * 400
    expected += b"".join(b"VALUE k%d 0 %d\r\n%s\r\nEND\r\n" % (i, len(value), value) for i in range(400))
    assert nc(stored + fetched) == expected


def test_an_unfinished_command_is_dropped_at_the_end(nc, server):
    assert nc(b"mn\r\nset k 0 0 5\r\nhel") == b"MN\r\n"
    assert nc(b"mn\r\nversion") == b"MN\r\n"
    assert server.ask(b"get k\r\n", end=b"END\r\n") == b"END\r\n"


def test_a_port_check_without_data(nc):
    assert nc(b"", "-z") == b""
    assert nc(b"") == b""
