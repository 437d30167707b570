"""Names, signatures and flags are those of public_api.txt."""

import difflib

import public_api

import tfbinreg
from tflite_tools.commands import arguments


def test_nothing_has_changed_for_users():
    recorded, now = public_api.SNAPSHOT.read_text(), public_api.described()
    changes = difflib.unified_diff(recorded.splitlines(), now.splitlines(), lineterm="", n=0)
    assert recorded == now, "\n".join(
        [
            "If users are to have this, write CHANGELOG.md and run python tests/public_api.py:",
            *changes,
        ]
    )


def test_changes_of_a_signature_and_of_a_flag_are_seen(monkeypatch):
    before = public_api.described().splitlines()
    build = arguments._build

    def built():
        parser, commands = build()
        commands["inspect"].add_argument("--depth", default=3)
        return parser, commands

    monkeypatch.setattr(tfbinreg, "plan", lambda model, *, bits=4: None)
    monkeypatch.setattr(arguments, "_build", built)
    found = set(public_api.described().splitlines()) - set(before)
    assert found == {"tfbinreg.plan(model, *, bits = 4)", "$ inspect --depth (default 3)"}
