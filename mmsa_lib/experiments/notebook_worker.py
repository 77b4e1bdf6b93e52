"""The process that runs one notebook: ``python -P notebook_worker.py REQUEST.json``.

:func:`mmsa_lib.experiments.notebooks.execute` starts it, one per notebook, in a folder of its own. A process of its own
because papermill changes the working directory of the process that it runs in, and because a kernel that takes its
parent down must not take other runs with it.

The journal is the only trusted account of what happened. After a kernel was killed, papermill saves a notebook in which
every cell says ``completed``; after ``sys.exit()`` in a cell it raises nothing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

STARTED, REPLIED, FAILED, FINISHED = "started", "replied", "failed", "finished"


class Journal:
    """A file of one JSON line per event, complete up to the last event even if the process is killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.current: int | None = None

    def write(self, event: str, **fields: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **fields}) + "\n")

    def before_cell(self, cell: Any, cell_index: int) -> None:
        self.current = cell_index
        self.write(STARTED, cell=cell_index)

    def after_cell(self, cell: Any, cell_index: int, execute_reply: dict) -> None:
        content = execute_reply["content"]
        self.write(REPLIED, cell=cell_index, status=content["status"], exited=_asks_to_exit(content))


def run_request(request: dict[str, Any]) -> None:
    """Execute ``request["notebook"]`` and write every event to ``request["journal"]``; raises nothing."""
    journal = Journal(Path(request["journal"]))
    endings: list[int] = []
    try:
        import papermill
        from traitlets.config import Config

        _record_endings(endings)

        # Messages of papermill go to a log that nobody reads; what matters is in the journal.
        logging.getLogger("papermill").setLevel(logging.CRITICAL)
        # TCP ports are chosen before the kernel binds them, so two kernels can get the same one. A socket file in a
        # private folder cannot collide. The connection file lies there too, and goes with the folder.
        transport = {
            "transport": "ipc", "ip": request["socket"], "connection_file": f"{request['socket']}.json",
        }  # fmt: skip
        papermill.execute_notebook(
            request["notebook"],
            request["output"],
            parameters=request["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=300,
            config=Config(KernelManager=transport),
            on_cell_execute=journal.before_cell,
            on_cell_executed=journal.after_cell,
            coalesce_streams=True,
        )
    except Exception as error:
        journal.write(FAILED, cell=journal.current, **_describe(error, endings))
    else:
        journal.write(FINISHED)


def _record_endings(endings: list[int]) -> None:
    """Let jupyter_client add the exit status of a kernel that ended to ``endings``; it forgets it otherwise."""
    from jupyter_client.provisioning import LocalProvisioner

    poll = LocalProvisioner.poll

    async def recorded(self: Any) -> int | None:
        status = await poll(self)
        if status is not None and self.has_process:
            endings.append(status)
        return status

    LocalProvisioner.poll = recorded


def end_with_parent() -> None:
    """End this process as soon as its standard input closes, that is when whoever started it is gone."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be held while the interpreter shuts down
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _asks_to_exit(content: dict[str, Any]) -> bool:
    """Whether the cell asked its kernel to end (``sys.exit``, ``exit``, ``quit``)."""
    payload = content.get("payload") or []
    return content.get("ename") == "SystemExit" or any(part.get("source") == "ask_exit" for part in payload)


def _describe(error: Exception, endings: list[int]) -> dict[str, Any]:
    """Kind, message and traceback of what papermill raised; where no cell raised it, how the kernel had ended."""
    from papermill.exceptions import PapermillExecutionError, strip_color

    if isinstance(error, PapermillExecutionError):
        return {
            "error": error.ename,
            "message": strip_color(error.evalue),
            "traceback": strip_color("\n".join(error.traceback)),
        }
    ending = endings[0] if endings else None
    return {"error": type(error).__name__, "message": str(error), "traceback": "", "ending": ending}


if __name__ == "__main__":
    end_with_parent()
    run_request(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
