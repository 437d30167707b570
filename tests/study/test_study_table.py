"""Studies as data."""

import json

import pytest

from examples.study.arm import Arm
from examples.study.nets import NETS
from examples.study.read import STUDIES, read_study

SHIPPED = sorted(path.stem for path in STUDIES.glob("*.json"))


@pytest.fixture
def write(tmp_path):
    def write(name="some", **fields):
        whole = {
            "about": "a test",
            "baseline": "a",
            "nets": ["probe", "resnet8"],
            "bits": ["float"],
            "seeds": [3, 4],
            "arms": {"a": {"epochs": 2}, "b": {"epochs": 2, "rate": 0.1}},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**whole, **fields}))
        return str(path)

    return write


@pytest.mark.parametrize("name", SHIPPED)
def test_the_studies_can_be_read(name):
    study = read_study(name)
    rows = study.runs()
    assert (
        len({row.key for row in rows})
        == len(rows)
        == len(study.arms) * len(study.seeds) * len(study.nets) * len(study.bits)
    )
    assert set(study.nets) <= NETS.keys()
    assert all(row.start is not None for row in rows if row.bits is not None)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("tune")])
def test_no_tuning_study_looks_at_test_rows(name):
    assert not read_study(name).report


def test_rows_come_seed_by_seed_and_have_stable_keys(write):
    keys = [row.key for row in read_study(write()).runs()]
    assert keys[:4] == [
        "probe-float-a-s3",
        "probe-float-b-s3",
        "resnet8-float-a-s3",
        "resnet8-float-b-s3",
    ]
    assert keys[4:] == [key.replace("s3", "s4") for key in keys[:4]]


def test_quantized_rows_name_their_float_net(write):
    write("net", arms={"a": {"epochs": 7}}, seeds=[9], nets=["probe"])
    study = read_study(write(start="net", bits=["w2a8"]))
    row = study.find("resnet8-w2a8-b-s4")
    assert row.bits == (2, 8)
    assert (row.start.study, row.start.key) == ("net", "resnet8-float-a-s9")
    assert row.start.arm.epochs == 7
    with pytest.raises(ValueError, match="no row 'resnet8-w2a8-c-s4'"):
        study.find("resnet8-w2a8-c-s4")


def test_every_setting_is_in_the_digest(write):
    write("net", arms={"a": {"epochs": 7}}, seeds=[9])
    base = {"start": "net", "bits": ["w2a8"], "rows": [4, 5, 6]}
    changes = [
        {},
        {"bits": ["w2a2"]},
        {"nets": ["resnet8"]},
        {"seeds": [5]},
        {"rows": [4, 5, 7]},
        {"report": True},
        {"common": {"batch": 3}},
        {"common": {"recipe": {"per_channel": True}}},
    ]
    digests = [read_study(write(**{**base, **change})).runs()[0].digest for change in changes]
    write("net", arms={"a": {"epochs": 8}}, seeds=[9])
    digests.append(read_study(write(**base)).runs()[0].digest)
    assert len(set(digests)) == len(digests)
    assert read_study(write(**base, about="other words")).runs()[0].digest == digests[-1]


def test_all_that_is_wrong_is_told_at_once(write):
    with pytest.raises(ValueError) as error:
        read_study(
            write(
                arms={"a": {"epochs": 0, "optimizer": "adagrad"}, "b": {"rate": 1, "pace": 2}},
                nests=[],
            )
        )
    text = str(error.value)
    for part in ("arm 'a': optimizer must be", "epochs and batch", "arm 'b': no field 'pace'"):
        assert part in text
    assert "'epochs' is missing" in text and "'nests' is no field" in text
    with pytest.raises(ValueError) as error:
        read_study(write(baseline="c", bits=["2,2", "w2a2"], rows=[5, 5, 6]))
    for part in ("bits must be like", "'c' is not among", "need a float one", "growing numbers"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="No study can be read"):
        read_study("nowhere")


def test_a_start_is_one_float_net(write):
    write("two")
    with pytest.raises(ValueError, match="one arm and one seed"):
        read_study(write(start="two", bits=["w2a2"]))


def test_settings_are_what_is_not_so_by_default():
    assert Arm(epochs=2, rate=0.001).settings() == {"epochs": 2}
    arm = Arm(epochs=2, rate=0.1, recipe={"per_channel": True})
    assert arm.settings() == {"epochs": 2, "rate": 0.1, "recipe": {"per_channel": True}}
    assert Arm.of(arm.settings()) == arm


def test_an_arm_that_cannot_be(write):
    with pytest.raises(ValueError, match="rate must be positive"):
        Arm(epochs=1, rate=0.0)
    with pytest.raises(ValueError, match="needs a name"):
        Arm(epochs=1, callbacks=({"strategy": "joint"},))
