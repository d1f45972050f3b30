"""Starts the server under test on a free port and stops it again.

Everything here holds for memcached and filbert alike, so a test that fails against one of them only is a difference
between the two.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

HOST = "127.0.0.1"

# Generous: a loaded build machine may take seconds to schedule a new process. Passing runs never wait this long.
DEADLINE_SECONDS = 60.0


def server_under_test():
    """The server under test: `SERVER_BIN`, a path or a name on PATH."""
    wanted = os.environ.get("SERVER_BIN")
    if not wanted:
        raise RuntimeError("set SERVER_BIN to the filbert or memcached binary to test")
    found = shutil.which(wanted)
    if not found:
        raise RuntimeError(f"SERVER_BIN={wanted} is not an executable file")
    return found


def poll(condition, what, deadline_seconds=DEADLINE_SECONDS):
    """Returns the first truthy result of `condition`; fails when the deadline passes without one."""
    end = time.monotonic() + deadline_seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"not within {deadline_seconds} s: {what}"
        time.sleep(0.02)


class Server:
    """One running server that owns its process and its temporary directory."""

    def __init__(self, *arguments, listens_on=None, binary=None):
        """`listens_on`: the path of a Unix socket (with `-s` among the arguments) instead of a TCP port."""
        self._directory = tempfile.TemporaryDirectory(prefix="clients-")
        self._port_file = pathlib.Path(self._directory.name, "ports")
        self._log = open(pathlib.Path(self._directory.name, "log"), "w+b")
        # `-p -1` lets the server choose: a port picked here could be taken before the server binds it.
        listen = [] if listens_on else ["-p", "-1", "-U", "0", "-l", HOST]
        command = [binary or server_under_test(), *listen, *arguments]
        if os.geteuid() == 0:
            command += ["-u", "root"]  # memcached refuses to run as root without being told so
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={
                **os.environ,
                "MEMCACHED_PORT_FILENAME": str(self._port_file),
                "FILBERT_HTTP_LISTEN": f"{HOST}:0",
            },
        )
        try:
            if listens_on:
                poll(lambda: self._accepts_on(listens_on), f"{command} listens")
            else:
                self.port = poll(lambda: self._announced_port("TCP INET"), f"{command} listens")
        except BaseException:
            self.stop()
            raise

    @property
    def address(self):
        """`host:port`, as the command line tools and most clients want it."""
        return f"{HOST}:{self.port}"

    @property
    def endpoint(self):
        """`(host, port)`."""
        return (HOST, self.port)

    @property
    def http(self):
        """The address of its status page."""
        return f"http://{HOST}:{poll(lambda: self._announced_port('HTTP INET'), 'it listens for HTTP')}/"

    def connect(self):
        """A bare connection, for what a client cannot send or does not show."""
        return socket.create_connection(self.endpoint, timeout=DEADLINE_SECONDS)

    def ask(self, request, end=b"\r\n"):
        """Sends `request` on a connection of its own; returns the reply up to and including `end`."""
        with self.connect() as connection:
            connection.sendall(request)
            reply = b""
            while not reply.endswith(end):
                chunk = connection.recv(65536)
                if not chunk:
                    raise ConnectionError(f"closed after {request!r}: {reply!r}")
                reply += chunk
            return reply

    def stat(self, name, group=b""):
        """One value of `stats`, as text; None when the server does not report it."""
        reply = self.ask(b"stats " + group + b"\r\n", end=b"END\r\n")
        for line in reply.decode().splitlines():
            word, _, rest = line.partition(" ")
            field, _, value = rest.partition(" ")
            if word == "STAT" and field == name:
                return value
        return None

    def stop(self):
        """Stops the server at once, without caring how it takes it."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def _fail_if_it_exited(self):
        exit_code = self._process.poll()
        if exit_code is not None:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")
            raise RuntimeError(f"{self._process.args} exited with {exit_code} before it listened:\n{said}")

    def _accepts_on(self, path):
        self._fail_if_it_exited()
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(path)) == 0

    def _announced_port(self, kind):
        self._fail_if_it_exited()
        if not self._port_file.exists():
            return None
        # Only whole lines: the file may be seen while it is being written.
        for line in self._port_file.read_text().splitlines(keepends=True):
            if line.startswith(f"{kind}: ") and line.endswith("\n"):
                return int(line.removeprefix(f"{kind}: "))
        return None
