"""A device that QEMU emulates, behind a serial port that is a connection of this computer."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from tflite_tools.c import boards
from tflite_tools.c.generate import Sources
from tflite_tools.c.host_run import CompilerError

_PROGRAM, _CHUNK = "server.c", 128  # bytes in a line: nothing has small buffers here
_HOST = "127.0.0.1"


@contextlib.contextmanager
def running(
    sources: Sources,
    headers: Mapping[str, str],
    *,
    cpu: str,
    flags: Sequence[str] = ("-O2",),
) -> Iterator[str]:
    """Build a network for a processor and run it there meanwhile.

    Args:
        sources: the C of the network.
        headers: the example's (`packages.example`).
        cpu: a key of `boards.CPUS`.
        flags: of the compiler.

    Yields:
        The address of its serial port, as `serial_port.opened` takes it.

    Raises:
        ValueError: if there is no such processor.
        CompilerError: if a tool is missing or refuses, or the network does not fit the board.
    """
    board = boards.board_of(cpu)
    own = (f"-DUART={board.uart:#x}u", f"-DSERVE_CHUNK={_CHUNK}", f'-DSERVE_CORE="{cpu}"')
    with tempfile.TemporaryDirectory(prefix="tflite_tools_device_") as path:
        folder = pathlib.Path(path)
        boards.build(folder, sources, board, (*flags, *own), program=_PROGRAM, beside=headers)
        with socket.create_server((_HOST, 0)) as server, tempfile.TemporaryFile("w+") as messages:
            # QEMU inherits the socket: nobody else can take its port. It starts when it is opened.
            number, inherited = server.getsockname()[1], server.fileno()
            link = f"socket,id=link,fd={inherited},server=on,wait=on,nodelay=on"
            process = subprocess.Popen(
                [*boards.emulator(board, serial="chardev:link"), "-chardev", link],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                pass_fds=[inherited],
            )
            server.close()
            try:
                yield f"socket://{_HOST}:{number}"
            except RuntimeError as error:
                if process.poll() is None:
                    raise
                messages.seek(0)
                text = messages.read().strip()[:2000]
                raise CompilerError(f"{board.tools.qemu} ended meanwhile: {text}") from error
            finally:
                process.kill()
                process.wait()
