"""Runs the scripts of clients in other languages."""

import os
import pathlib
import subprocess

SCRIPTS = pathlib.Path(__file__).parent / "scripts"

# Where `tests/run` installs what npm has.
NODE_MODULES = pathlib.Path(__file__).parents[2] / "target" / "node" / "node_modules"

COMMANDS = {
    "dalli": ["ruby", SCRIPTS / "dalli.rb"],
    "memjs": ["node", SCRIPTS / "memjs.js"],
    "php": ["php", SCRIPTS / "memcached.php"],
}

# Each ends within seconds; the bound is for one that waits for a reply that never comes.
SCRIPT_SECONDS = 120


def run(client, *arguments):
    """Runs a client's script to its end; fails with what it says when it did not see what it expects."""
    done = subprocess.run(
        [*COMMANDS[client], *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SCRIPT_SECONDS,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
    )
    said = f"{done.stdout.decode()} {done.stderr.decode()}"
    assert (done.returncode, done.stdout) == (0, b"as expected\n"), said
