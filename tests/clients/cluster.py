"""Starts a cluster of the server under test: an etcd, and nodes that find each other through it."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from server import HOST, Server, poll

# A node that is slow because the machine is busy is not given up: other tests share the two cores.
PATIENT = ["--lease-ttl", "10", "--peer-timeout", "30000", "--peer-connect-timeout", "10000"]

# For tests in which a node dies: about the shortest lease that etcd keeps.
BRIEF = ["--lease-ttl", "2", "--peer-timeout", "1000", "--peer-connect-timeout", "1000"]


def free_port(host=HOST):
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


# An address of this process's own: clients' connections, which come from HOST, take no port of it.
INSIDE = f"127.252.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


class Etcd:
    """One running etcd that owns its process and its temporary directory."""

    def __init__(self):
        binary = shutil.which("etcd")
        if not binary:
            raise RuntimeError("`etcd` is not on PATH; install it: apt-get install etcd-server")
        self._directory = tempfile.TemporaryDirectory(prefix="etcd-")
        self._log = open(pathlib.Path(self._directory.name, "log"), "w+b")
        self.address = f"{INSIDE}:{free_port(INSIDE)}"
        clients, peers = f"http://{self.address}", f"http://{INSIDE}:{free_port(INSIDE)}"
        command = [binary, "--name", "etcd", "--data-dir", self._directory.name + "/data"]
        command += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
        command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        command += ["--initial-cluster", f"etcd={peers}"]
        # Quick elections, so that a lease may be as short as a second.
        command += ["--heartbeat-interval", "20", "--election-timeout", "200"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            poll(self._answers, f"{command} listens")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def _answers(self):
        if self._process.poll() is not None:
            self._log.seek(0)
            raise RuntimeError(f"etcd ended: {self._log.read().decode(errors='replace')}")
        host, _, port = self.address.partition(":")
        with socket.socket() as connection:
            return connection.connect_ex((host, int(port))) == 0


class Cluster:
    """Nodes that are one cache; they need not be told of each other."""

    def __init__(self, nodes, *arguments, lease_seconds=None):
        """`arguments`: of every node, besides those that make it a member."""
        self._arguments = [*PATIENT, *arguments]
        if lease_seconds:
            self._arguments += ["--lease-ttl", str(lease_seconds)]
        self._etcd = Etcd()
        self.nodes = []
        try:
            for number in range(1, nodes + 1):
                self.nodes.append(self._start(f"node-{number}"))
            self.whole()
        except BaseException:
            self.stop()
            raise

    @property
    def endpoints(self):
        """`(host, port)` of each node."""
        return [node.endpoint for node in self.nodes]

    @property
    def addresses(self):
        """`host:port` of each node."""
        return [node.address for node in self.nodes]

    def whole(self):
        """Waits until all nodes agree on the owner of each key, and serve."""

        def agree():
            try:
                digests = {node.stat("digest", b"ring") for node in self.nodes}
                members = {node.stat("members", b"ring") for node in self.nodes}
                settled = all(node.stat("settled", b"ring") == "yes" for node in self.nodes)
                serving = all(node.stat("standing", b"ring") == "serving" for node in self.nodes)
            except ConnectionError:
                return False  # a node that has just stood still closes its connections
            return settled and serving and len(digests) == 1 and members == {str(len(self.nodes))}

        poll(agree, f"{len(self.nodes)} nodes are one cluster")

    def add(self, node_id, *arguments):
        """One more node, which is a member when this returns; `arguments` are its alone."""
        self.nodes.append(self._start(node_id, *arguments))
        self.whole()

    def kill(self, number):
        """Ends a node at once, and forgets it."""
        self.nodes.pop(number).stop()

    def owner_of(self, key):
        """The number of the node that owns a key."""
        reply = self.nodes[0].ask(b"why " + key + b"\r\n", end=b"END\r\n").decode()
        address = next(line.split()[2] for line in reply.splitlines() if line.startswith("STAT owner_addr "))
        return self.addresses.index(address)

    def stop(self):
        for node in self.nodes:
            node.stop()
        self._etcd.stop()

    def _start(self, node_id, *arguments):
        options = {
            "--etcd-endpoints": self._etcd.address,
            "--cluster": "clients",
            "--node-id": node_id,
            "--peer-listen": f"{INSIDE}:{free_port(INSIDE)}",
        }
        return Server(*(word for option in options.items() for word in option), *self._arguments, *arguments)
