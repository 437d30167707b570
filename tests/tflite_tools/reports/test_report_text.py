"""Tables and JSON."""

import io
import json

import pytest

from tflite_tools.checks import verdict
from tflite_tools.checks.verdict import Check, Report, Verdict
from tflite_tools.reports import report_text
from tflite_tools.reports.describe import describe

RESULT = Report(
    (
        Check("codes", Verdict.FAILED, "head: 1 code differs [0]", ("head",), {"codes": 3}),
        Check("tflm", Verdict.SKIPPED, "not installed"),
    )
)


def _printed(show, value):
    stream = io.StringIO()
    show(value, report_text.console(stream))
    return stream.getvalue()


def test_verification_names_failed_layers_in_plain_text():
    text = _printed(report_text.print_verification, RESULT)
    assert "FAILED codes: head" in text
    assert "1 code differs [0]" in text
    assert "\x1b" not in text
    assert "verified" not in text


def test_verification_as_json():
    fields = json.loads(report_text.verification_json(RESULT))
    assert fields["passed"] is False
    assert fields["checks"][0] == {
        "name": "codes",
        "verdict": "failed",
        "detail": "head: 1 code differs [0]",
        "layers": ["head"],
        "figures": {"codes": 3},
        "advice": verdict.advice(RESULT["codes"]),
    }
    assert "convert again" in fields["checks"][0]["advice"]


@pytest.mark.parametrize("name", ["int8_file", "float_file"])
def test_descriptions(name, request):
    description = describe(request.getfixturevalue(name))
    text = _printed(report_text.print_description, description)
    assert "DEPTHWISE_CONV_2D" in text
    assert str(description.size) in text
    fields = json.loads(report_text.description_json(description))
    assert fields["size"] == sum(fields["size_by_category"].values())
    assert fields["packed_weight_bytes"] == description.packed_weight_bytes


def test_names_cannot_control_the_terminal(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "conv").name = "\x1b[31m[bold]conv"

    text = _printed(report_text.print_description, describe(edit(int8_file, damage)))
    assert "\x1b" not in text
    assert "[bold]conv" in text


def test_json_has_no_other_numbers():
    text = report_text.to_json({"a": float("nan"), "b": (float("inf"), 1.5)})
    assert json.loads(text) == {"a": "nan", "b": ["inf", 1.5]}
