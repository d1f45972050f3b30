"""A headless Chromium that looks at a status page, and tells what it saw, asked for and complained of."""

import ctypes
import json
import os
import shutil
import tempfile

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

from server import poll

# Nothing but the page is to be asked for anything, and nothing is kept.
ARGUMENTS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-default-browser-check",
    "--no-first-run",
]

DESKTOP = (1280, 900)
PHONE = (360, 740)


def program(name, package):
    """Where a program is; Selenium would download what it is not told of."""
    found = shutil.which(name)
    if not found:
        raise RuntimeError(f"`{name}` is not on PATH; install it: apt-get install {package}")
    return found


# prctl(2) and capabilities(7).
PR_CAPBSET_DROP = 24
CAP_SYS_NICE = 23


def _go_with_the_others():
    """As root, Chromium gives itself a niceness of -8, and would go before all other tests' servers: it must not be able
    to. It does not go last either: on a machine with other work it would hardly be run at all."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE)  # fails unless root, and is not needed then


class Browser:
    """One Chromium that owns its process and its profile."""

    def __init__(self):
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        for argument in [*ARGUMENTS, f"--user-data-dir={self._profile.name}"]:
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # its sandbox does not start as root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Service(program("chromedriver", "chromium-driver"), popen_kw={"preexec_fn": _go_with_the_others})
        self.driver = webdriver.Chrome(options, driver)
        self.resize(*DESKTOP)

    def close(self):
        self.driver.quit()
        self._profile.cleanup()

    def open(self, url):
        """Shows a page anew, with nothing remembered of earlier ones."""
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(url)

    def resize(self, width, height):
        """What the page takes for the screen. Chromium's own window cannot be as narrow as a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme):
        """`light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script, *arguments):
        """What a piece of JavaScript returns, which the page's policy does not concern."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector):
        """The text of the first such element that can be seen, as it is seen; None without one."""
        texts = self.texts(selector)
        return texts[0] if texts else None

    def texts(self, selector):
        """The texts of all such elements that can be seen; every blank is an ordinary one."""
        script = """return [...document.querySelectorAll(arguments[0])]
            .filter(element => element.getClientRects().length > 0)
            .map(element => element.innerText.trim().replaceAll('\\u00a0', ' '))"""
        return self.run(script, selector)

    def wait_for(self, condition, what):
        """Waits until something holds; tells what the page showed when it never does."""
        try:
            return poll(condition, what)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n--- the page shows:\n{self.text('body')}") from failure

    def wait_for_text(self, selector, wanted):
        """Waits until such an element, of those that can be seen, has these words in it."""
        self.wait_for(lambda: any(wanted in text for text in self.texts(selector)), f"{selector} tells {wanted!r}")

    def submit(self, form, text):
        """Fills the only field of a form in, and sends it off."""
        field = self.driver.find_element("css selector", f"{form} input")
        field.clear()
        field.send_keys(text)
        self.driver.find_element("css selector", f"{form} button").click()

    def complaints(self):
        """What the console has been told since this was last asked, but for the notices of no account."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self):
        """The addresses that pages have asked for since this was last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def screenshot(self, path, height=None):
        """A PNG of the page: all of it, or `height` pixels from the top."""
        width = self.run("return innerWidth")
        self.resize(width, height or self.run("return document.documentElement.scrollHeight"))
        if not self.driver.save_screenshot(str(path)):
            raise WebDriverException(f"no screenshot at {path}")
