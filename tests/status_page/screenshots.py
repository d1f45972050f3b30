"""Makes the pictures of the status page in `screenshots/`, from a real cluster of three nodes under a little load:

    cargo build --release
    target/venv/bin/python tests/status_page/screenshots.py target/release/filbert

`tests/run` makes the virtual environment, and installs Chromium and etcd. Besides it needs `pngquant`, and looks best with
the font Inter (Debian: pngquant, fonts-inter). It takes five minutes, which is how far back the page's charts go.
"""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/clients"))

from browser import DESKTOP, PHONE, Browser, program  # noqa: E402
from cluster import Cluster  # noqa: E402
from load import load  # noqa: E402
from server import poll  # noqa: E402

PICTURES = ROOT / "screenshots"
NODES = 3
CHART_SECONDS = 300
LEASE_SECONDS = 5
# What a README may weigh.
PICTURE_BYTES_MAX = 150_000


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.environ["SERVER_BIN"] = sys.argv[1]
    pngquant = program("pngquant", "pngquant")
    cluster = Cluster(NODES, "-m", "8", lease_seconds=LEASE_SECONDS)
    browser = Browser()
    try:
        PICTURES.mkdir(exist_ok=True)
        with load(cluster.endpoints):
            browser.open(cluster.nodes[0].http)
            time.sleep(CHART_SECONDS)
            look_up(browser, "visits")
            for name, scheme, size in [
                ("desktop-light", "light", DESKTOP),
                ("desktop-dark", "dark", DESKTOP),
                ("phone", "light", PHONE),
            ]:
                browser.prefer(scheme)
                browser.resize(*size)
                take(browser, PICTURES / f"{name}.png", pngquant)
    finally:
        browser.close()
        cluster.stop()


def look_up(browser, key):
    browser.submit("#lookup", key)
    poll(lambda: "Owner" in browser.texts("#lookup dt"), "the key's owner is shown")


def take(browser, path, pngquant):
    """The page from top to end; a palette is enough for it."""
    browser.screenshot(path)
    subprocess.run([pngquant, "--force", "--strip", "--output", path, path], check=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size} bytes")
    assert size < PICTURE_BYTES_MAX, path


if __name__ == "__main__":
    main()
