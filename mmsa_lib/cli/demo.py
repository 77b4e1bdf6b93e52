"""``mmsa-lib demo``: a page in the browser on which a sentence, a sample or a clip is predicted."""

from __future__ import annotations

import argparse
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Any

from mmsa_lib.cli.output import add_command
from mmsa_lib.errors import ConfigError

ADDRESS = "127.0.0.1"

LARGEST = 2**28
"""Bytes of a clip that is dropped on the page; it comes in one message."""

LONGEST = 30
"""Bytes of a folder's path below which the names of a kernel's sockets are not too long for the system."""

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
"""What a browser may load for the page: nothing from elsewhere, though Voilà's template names icons of another site."""

OPTIONS = (
    f"--Voila.ip={ADDRESS}",
    "--Voila.auto_token=True",  # or every user of this machine could open the page
    "--Voila.open_browser=True",  # calls launch_browser, which is ours
    "--Voila.port_retries=0",
    "--VoilaConfiguration.show_tracebacks=False",
    "--VoilaConfiguration.http_keep_alive_timeout=600",  # the page is sent when its cells have run
    "--MappingKernelManager.cull_interval=60",
    "--MappingKernelManager.cull_idle_timeout=3600",  # of a page that was closed without a word
    "--Application.log_level=ERROR",
)


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``demo``."""
    what = "open a small page: type a sentence, switch a modality off, drop a clip"
    command = add_command(subparsers, "demo", demo, what, json="")
    command.add_argument("--port", type=int, default=0, metavar="N", help="default: one that is free")
    command.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    runs = "finished runs to predict with; default: those of the package, and one that the page trains"
    command.add_argument("--runs", nargs="+", default=[], metavar="RUN", help=runs)


def demo(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, to this machine and to those who know the address with its token."""
    from mmsa_lib.experiments.runs import find_run
    from mmsa_lib.paths import project_root

    if (root := project_root()) is None:
        raise ConfigError("the page is a notebook of the project's checkout, and the library is not in one")
    if not 0 <= args.port < 2**16:
        raise ConfigError(f"--port {args.port} is no port; choose one from 1024 to 65535, or leave it out")
    runs = [str(find_run(run).folder.resolve()) for run in args.runs]
    try:
        from voila.app import Voila

        from mmsa_lib.experiments.kernels import private_folder, worker_environment
    except ImportError as error:
        raise ConfigError(f"the page needs Voilà ({error}); run: pip install -e '.[demo]'") from None
    with private_folder() as folder:
        os.environ.update(worker_environment(folder, {}))  # no settings of the user's own Jupyter
        page = _page(root / "notebooks" / "demo.ipynb", folder, runs)
        server = Voila.instance()
        sockets = (
            ["--KernelManager.transport=ipc", f"--Voila.connection_dir_root={folder}"] if os.name == "posix" else []
        )
        server.initialize([str(page), f"--Voila.port={args.port or _free_port()}", *OPTIONS, *sockets])
        server.tornado_settings = {
            "xsrf_cookies": True, "websocket_max_message_size": LARGEST, "ws_ping_timeout": 30_000,
            "headers": {"Content-Security-Policy": POLICY},
        }  # fmt: skip
        server.voila_configuration.file_allowlist = []  # the page itself, and no other file of its folder
        server.launch_browser = lambda: _ready(server.display_url, not args.no_browser)
        server.start()
    return 0


def _page(source: Path, folder: Path, runs: list[str]) -> Path:
    """A copy of the notebook with these runs, to which nothing of an earlier execution sticks."""
    import nbformat

    from mmsa_lib.experiments.parameters import read_notebook

    book: Any = read_notebook(source)
    (place,) = (i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", []))
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(f"runs = {runs!r}"))
    for cell in book.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    nbformat.write(book, folder / source.name)
    return folder / source.name


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((ADDRESS, 0))
        return one.getsockname()[1]


def _ready(url: str, opened: bool) -> None:
    print(f"{url}\nCtrl-C ends it.", flush=True)
    if opened:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
