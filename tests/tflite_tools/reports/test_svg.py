import re

import pytest

from tflite_tools.reports import svg


def circles(picture):
    found = re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'.*?fill:(none)?", picture)
    return [(float(x), float(y), hollow == "none") for x, y, hollow in found]


def words(picture):
    return re.findall(r"<text [^>]*>([^<]*)</text>", picture)


def test_scattered_points_keep_their_order():
    points = {"A": (1000.0, 80.0), "B": (2000.0, 90.0), "C": (3000.0, 85.0)}
    picture = svg.scatter(points, ["A", "B"], across="bytes", up="accuracy <%>")
    (a, b, c) = circles(picture)
    assert a[0] < b[0] < c[0] and b[1] < c[1] < a[1]  # upwards is less
    assert [point[2] for point in (a, b, c)] == [False, False, True]
    assert {"A", "B", "C", "bytes", "accuracy &lt;%&gt;", "1000", "80", "90"} <= {*words(picture)}
    assert f"points='{a[0]:.1f},{a[1]:.1f} {b[0]:.1f},{b[1]:.1f}'" in picture


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_equal_points_share_their_place_and_name(value):
    picture = svg.scatter({"A": (value, 5.0), "B": (value, 5.0)}, ["A"], across="x", up="y")
    a, b = circles(picture)
    assert a[:2] == b[:2] and "A, B" in words(picture)


@pytest.mark.parametrize("numbers", [(0.1, 0.2), (80.0, 91.5), (1.0, 1e6), (12.0, 12.0)])
def test_numbers_at_an_axis_are_round_and_few(numbers):
    ticks = svg._Axis(numbers, 0.0, 100.0).ticks()
    assert 2 <= len(ticks) <= svg._TICKS + 1
    assert all(len(f"{tick:.10g}") <= 8 for tick in ticks)
