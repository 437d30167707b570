"""What the command's exit codes mean. docs/cli.md has the same table."""

from __future__ import annotations

SUCCESS = 0
FAILURE = 1
USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

MEANINGS = {
    SUCCESS: "done; what was to be checked holds",
    FAILURE: "a check failed, or the command could not do what it was asked",
    USAGE_ERROR: "the command line cannot be understood; nothing was read or written",
    INTERRUPTED: "interrupted (Ctrl-C); nothing half finished was written",
}
