"""A private JupyterLab server and headless Chromium.

Everything is started by context managers, so that it is stopped whatever happens in between.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from ended_processes import ended

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Nothing fetched or reported in the background; no GPU, little shared memory: a container has no more.
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Every cell in the page at once, so that nothing is judged before it is drawn.
    "notebook-extension/tracker": {"windowingMode": "none"},
}
NOT_INHERITED = ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JUPYTER_TOKEN", "PYTHONSTARTUP")
STARTED = 300  # seconds, on a machine however busy, for a server, a browser, a page


def wait_until(condition, seconds, what):
    """The first true value of ``condition()``; an AssertionError that names ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"after {seconds} s still waiting for {what}"
        time.sleep(0.2)
    return value


def missing_programs():
    """Why no browser can be driven here; empty if one can."""
    if not any(map(shutil.which, CHROMIUM)):
        return "needs Chromium (Debian: chromium); `make test-system` installs it as root"
    if not shutil.which("chromedriver"):
        return "needs ChromeDriver (Debian: chromium-driver); `make test-system` installs it as root"
    return ""


class Server:
    """A running JupyterLab server.

    Attributes:
        url: where it listens, ending in a slash.
        token: what it asks for.
    """

    def __init__(self, runtime):
        found = json.loads(runtime.read_text(encoding="utf-8"))
        self.url, self.token = found["url"], found["token"]

    def _call(self, method, path):
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=STARTED) as answer:
            return answer.read()

    def stop_kernels(self):
        """Shut down every open session and its kernel."""
        for session in json.loads(self._call("GET", "sessions")):
            self._call("DELETE", f"sessions/{session['id']}")


@contextmanager
def server(root, private):
    """JupyterLab over the folder ``root``, without the user's settings; what it writes itself goes to ``private``."""
    for name, values in SETTINGS.items():
        path = private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "MMSA_LIB_RUNS": "runs",  # or a run that is there already would not be trained
    }
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment = {**inherited, **{name: str(private / place) for name, place in folders.items()}}
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--ServerApp.root_dir={root}",
        # No request to the outside: neither news nor the list of extensions.
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if os.name == "posix" and os.geteuid() == 0:
        options.append("--allow-root")
    log = private / "server.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, cwd=private, env=environment, stdout=out, stderr=out)
    with ended(process):
        runtime = private / "runtime" / f"jpserver-{process.pid}.json"

        def listening():
            assert process.poll() is None, f"JupyterLab ended: {log.read_text(errors='replace')[-2000:]}"
            return runtime.is_file() and runtime.stat().st_size

        wait_until(listening, STARTED, "the JupyterLab server")
        yield Server(runtime)


@contextmanager
def browser(private):
    """Headless Chromium driven by selenium, with a profile of its own below ``private``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, CHROMIUM)))
    for flag in (*FLAGS, f"--user-data-dir={private / 'profile'}"):
        options.add_argument(flag)
    if os.name == "posix" and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    folders = {"XDG_CONFIG_HOME": str(private / "xdg"), "XDG_CACHE_HOME": str(private / "xdg")}
    service = Service(shutil.which("chromedriver"), env={**os.environ, **folders})
    driver = webdriver.Chrome(options, service)
    with ended(service.process):
        try:
            driver.set_script_timeout(STARTED)
            yield driver
        finally:
            driver.quit()
