"""Executing one notebook in a kernel of this very Python."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets import default

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DIED = (
    "The kernel died. Most often the memory was full: close other programs, "
    "or use a smaller profile (--profile mini)."
)


class ThisPython(AsyncKernelManager):
    """Starts this Python, whatever kernels this machine has set up."""

    @default("kernel_spec_manager")
    def _native_kernel_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], parent=self)

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"


class Client(NotebookClient):
    """A NotebookClient that Ctrl-C and SIGTERM end as any other program."""

    interrupted = False

    async def async_start_new_kernel(self, **options: object) -> None:
        # nbclient's own handlers, set just before, end in an AssertionError.
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def interrupt() -> None:
            self.interrupted = True
            self.shutdown_kernel = "immediate"
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # on Windows
            loop.remove_signal_handler(signal.SIGTERM)
            loop.add_signal_handler(signal.SIGINT, interrupt)
        await super().async_start_new_kernel(**options)


def execute(
    notebook: NotebookNode,
    path: Path,
    *,
    environment: dict[str, str],
    bar_options: dict[str, object],
) -> str:
    """Run every cell in place, in the folder of `path`.

    Raises KeyboardInterrupt when it is interrupted, with the kernel stopped.
    Returns "" or, when a cell fails or the kernel dies, a report: the
    notebook, the number of the cell, its source and its error.
    """
    bar = tqdm(
        total=len(notebook.cells),
        unit="cell",
        position=1,
        leave=False,
        **bar_options,
    )
    current = [0]

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        current[0] = cell_index
        bar.update(cell_index - bar.n)

    client = Client(
        notebook,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        on_cell_start=on_cell_start,
    )
    try:
        client.execute(env={**os.environ, **environment})
    except CellExecutionError as error:
        return _report(notebook, path, current[0], str(error))
    except (DeadKernelError, asyncio.CancelledError):
        if client.interrupted:
            raise KeyboardInterrupt from None
        return _report(notebook, path, current[0], DIED)
    finally:
        bar.close()
    return ""


def _report(notebook: NotebookNode, path: Path, index: int, error: str) -> str:
    cell = notebook.cells[index]
    for output in cell.outputs:
        if output.output_type == "error" and output.traceback:
            error = "\n".join(output.traceback)
    source = "".join(f"    {line}\n" for line in cell.source.split("\n"))
    count = len(notebook.cells)
    text = (
        f"{path.name}, cell {index + 1} of {count} failed:\n\n"
        f"{source}\n{error}"
    )
    return text if sys.stdout.isatty() else COLOURS.sub("", text)
