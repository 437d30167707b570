"""Opens serial ports, by pyserial."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tflite_tools.device.conversation import Port

BAUD = 115200  # as the examples of the packages say
_READ = 0.05  # seconds that reading waits
_WRITE = 5.0
_MISSING = "Serial ports are opened by pyserial: pip install pyserial, or 'tfbinreg[board]'"


def check_installed() -> None:
    """Check that pyserial is installed.

    Raises:
        RuntimeError: if not.
    """
    try:
        import serial  # noqa: F401
    except ImportError:
        raise RuntimeError(_MISSING) from None


@contextlib.contextmanager
def opened(name: str, *, baud: int = BAUD) -> Iterator[Port]:
    """A port that is open meanwhile.

    Args:
        name: /dev/ttyACM0, COM3, or an address of pyserial's such as socket://localhost:4000.
        baud: bits in a second.

    Raises:
        RuntimeError: if pyserial is missing, or the port cannot be opened.
    """
    check_installed()
    import serial

    try:
        port = serial.serial_for_url(name, baudrate=baud, timeout=_READ, write_timeout=_WRITE)
    except (OSError, ValueError) as error:  # pyserial's own errors are of these kinds
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else " ".join(str(error).split())
        raise RuntimeError(f"Cannot open the port {name!r}: {reason}.{_others()}") from error
    try:
        yield port
    finally:
        with contextlib.suppress(OSError):
            port.close()


def _others() -> str:
    """The ports that this computer has, as far as it tells."""
    from serial.tools import list_ports

    names = sorted(port.device for port in list_ports.comports())
    return f" Ports of this computer: {', '.join(names)}." if names else ""
