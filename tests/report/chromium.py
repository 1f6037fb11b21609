"""A headless Chromium that tests press keys in, by its own protocol over two pipes."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars=false", "--no-first-run",
    "--remote-debugging-pipe", "--disable-background-networking", "--disable-extensions",
)  # fmt: skip
KEYS = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40}


class Tab:
    """A page in the browser."""

    def __init__(self, out, into, patience=60):
        self.out, self.into, self.patience = out, into, patience
        self.number, self.left, self.events, self.session = 0, b"", [], None
        (target,) = [
            one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"
        ]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **params):
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params}
        asked |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(asked).encode() + b"\0")
        while (message := self._next()).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def _next(self):
        while b"\0" not in self.left:
            data = os.read(self.into, 1 << 20)
            assert data, "the browser has ended"
            self.left += data
        line, _, self.left = self.left.partition(b"\0")
        return json.loads(line)

    def show(self, width, height, dark=False, phone=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait_for("document.body && document.body.dataset.loaded")

    def value(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression):
        end = time.monotonic() + self.patience
        while not (found := self.value(f"Boolean({expression})")):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return found

    def press(self, key):
        given = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def received(self):
        """Bytes that came over the network so far, and how many answers."""
        ends = [one for one in self.events if one["method"] == "Network.loadingFinished"]
        return sum(one["params"]["encodedDataLength"] for one in ends), len(ends)

    def complaints(self):
        """What the browser's console says: errors of the page and what its policy refused."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [one["params"] for one in self.events if one.get("method") in kinds]

    def picture(self):
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


@contextmanager
def browser(profile):
    """A tab of a browser of its own, which ends with the block."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    places = f'exec "$@" 3<&{to_read} 4>&{back_write}'  # its protocol is on 3 and 4
    given = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        ["bash", "-c", places, "bash", *given],
        pass_fds=(to_read, back_write), stdout=quiet, stderr=quiet,
    )  # fmt: skip
    os.close(to_read)
    os.close(back_write)
    try:
        yield Tab(to_write, back_read)
    finally:
        process.kill()
        process.wait()
        os.close(to_write)
        os.close(back_read)
