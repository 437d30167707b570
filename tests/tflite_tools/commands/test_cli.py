"""Commands, exit codes, error lines."""

import json
import os
import shlex

import numpy as np
import pytest
from quick import slow

from tflite_tools.c import host_run
from tflite_tools.formats import build, lut, slim
from tflite_tools.from_keras import convert
from tflite_tools.running import runtime
from tflite_tools.schema.contents import load
from tflite_tools.system import files


def test_convert_verify_inspect(command, saved_net, tmp_path):
    path = tmp_path / "model.tflite"
    code, out, err = command("convert", saved_net, "--output", path)
    assert (code, err) == (0, "")
    content = path.read_bytes()
    assert content == convert.convert(saved_net).data
    assert f"{len(content)} bytes" in out
    assert f"verify {path} --reference {saved_net}" in out
    code, out, err = command("verify", path, "--reference", saved_net, "--samples", 8)
    assert (code, err) == (0, "")
    assert "verified" in out
    code, out, err = command("inspect", path)
    assert (code, err) == (0, "")
    assert "pointwise" in out


def test_float_inputs_and_json(command, saved_net, tmp_path):
    path = tmp_path / "model.tflite"
    flags = ["--input-type", "float32", "--json"]  # dashes do as well as underscores
    code, out, _ = command("convert", saved_net, "--output", path, *flags)
    assert code == 0
    content = path.read_bytes()
    assert content == convert.convert(saved_net, input_type="float32").data
    assert json.loads(out)["bytes"] == len(content)


def test_verify_fails_with_the_layers_name(command, model_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "conv").quantization.zeroPoint = np.array([100])

    model_file.write_bytes(edit(load(model_file.read_bytes()), damage).data)
    code, out, _ = command("verify", model_file, "--samples=4")
    assert code == 1
    assert "FAILED levels: conv" in out
    code, out, _ = command("verify", model_file, "--samples=4", "--json")
    assert code == 1
    assert json.loads(out)["passed"] is False


def test_verify_with_inputs(command, model_file, saved_net, tmp_path, images):
    np.savez(tmp_path / "x.npz", image=images, labels=np.zeros(3))
    arguments = ["--inputs", tmp_path / "x.npz", "--reference", saved_net, "--json"]
    code, out, err = command("verify", model_file, *arguments)
    assert (code, err) == (0, "")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert checks["agreement"]["figures"]["samples"] == len(images)


def test_verify_meets_a_limit_of_zero(command, model_file, saved_net):
    arguments = ["--reference", saved_net, "--samples", 4, "--max-mean-lsb", 0]
    code, out, _ = command("verify", model_file, *arguments)
    assert code == 0, out


@pytest.fixture
def canonical_file(two_bits, tmp_path):
    path = tmp_path / "canonical.tflite"
    path.write_bytes(two_bits.data)
    return path


@pytest.mark.parametrize("kind", ["int4", *slow("int8", "lut")])
def test_formats_convert_verify_compare_inspect(command, canonical_file, tmp_path, kind):
    path = tmp_path / "small.tflite"
    flags = ["--format", kind, "--slim", "--target", "tflm"]
    code, out, _ = command("convert", canonical_file, "--output", path, *flags)
    assert code == 0
    assert "metadata and manifest dropped" in out
    assert path.stat().st_size < canonical_file.stat().st_size
    for flag in ("--canonical", "--reference"):
        code, out, err = command("verify", path, flag, canonical_file, "--samples", 4)
        assert (code, err) == (0, "")
        assert "verified" in out
    code, out, _ = command("compare", canonical_file, path, "--samples", 4, "--max_lsb", 99)
    assert code == 0
    assert "the same within the limits" in out
    code, out, _ = command("inspect", path)
    assert code == 0
    assert {"int8": "INT8", "int4": "INT4", "lut": "LUT2"}[kind] in out


def test_convert_json_has_sizes_and_warnings(command, canonical_file, tmp_path):
    path = tmp_path / "small.tflite"
    flags = ["--format", "lut", "--split-convs", 9300, "--json"]
    code, out, err = command("convert", canonical_file, "--output", path, *flags)
    assert (code, err) == (0, "")
    fields = json.loads(out)
    assert fields["bytes"] == path.stat().st_size
    assert fields["canonical_bytes"] == canonical_file.stat().st_size
    assert fields["arena_bytes"] < fields["unsplit_arena_bytes"]
    assert fields["warnings"] == []


def test_compare_fails_beyond_the_limits(command, canonical_file, canonical, tmp_path):
    other = tmp_path / "other.tflite"
    other.write_bytes(canonical(2, False).data)
    code, out, _ = command("compare", canonical_file, other, "--samples", 4)
    assert code == 1
    assert "they differ" in out
    code, out, _ = command("compare", canonical_file, other, "--samples", 4, "--json")
    assert code == 1
    fields = json.loads(out)
    assert fields["within_limits"] is False
    assert any(row["different"] for row in fields["weights"])


def test_verify_against_another_network_fails(command, canonical_file, model_file):
    code, out, _ = command("verify", model_file, "--canonical", canonical_file, "--samples", 4)
    assert code == 1
    assert "FAILED structure" in out


@pytest.mark.slow
def test_c_sources_are_written_and_verified(command, canonical_file, tmp_path):
    folder = tmp_path / "net"
    flags = ["--output", folder, "--format", "c"]
    code, out, _ = command("convert", canonical_file, *flags, "--json")
    assert code == 0
    assert {"net.c", "net.h"} <= set(os.listdir(folder))
    arena = json.loads(out)["arena_bytes"]
    assert arena > 0
    code, out, err = command("convert", canonical_file, *flags, "--ram_budget", 1)
    assert (code, out) == (1, "") and "Activations do not fit into 1 bytes: the least " in err
    code, out, _ = command("convert", canonical_file, *flags, "--ram_budget", f"{arena}B")
    assert f"check it: tflite_tools verify {folder} --canonical {canonical_file}" in out
    assert " bytes of weights and constants, " in out
    code, out, err = command("verify", folder, "--canonical", canonical_file, "--samples", 4)
    proven = host_run.compiler() is not None and runtime.available(runtime.TFLM)
    assert code == (0 if proven else 1)
    assert err.startswith("tflite_tools: compiling and running the C in ") and err.count("\n") == 1
    assert "verified" in out if proven else "FAILED proof" in out
    assert "files are what this version writes" in out
    code, out, err = command("verify", folder)
    assert (code, out) == (1, "")
    assert "give --reference with the trained model, or --canonical with its int8 file" in err
    source = folder / "net.c"
    source.write_text(source.read_text().replace(".prescale = 32", ".prescale = 16", 1))
    code, out, err = command("verify", folder, "--reference", canonical_file, "--samples", 4)
    assert code == 1
    assert "FAILED codes: " in out


def test_folders_have_one_line_of_advice(command, canonical_file, saved_net, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    instead = f"Of C, take the .tflite file it was made from: `tflite_tools verify {folder} "
    for arguments in (
        ["inspect", folder],
        ["compare", folder, canonical_file],
        ["compare", canonical_file, folder],
        ["report", folder, "--output", tmp_path / "page.html"],
    ):
        code, out, err = command(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert instead in err
    for flags in ([], ["--reference", saved_net], ["--canonical", canonical_file]):
        code, out, err = command("verify", folder, *flags)
        assert (code, out) == (1, "")
        assert "must hold one network that convert wrote as C, holds none" in err


def test_c_sources_fill_a_folder(command, canonical_file, tmp_path, monkeypatch):
    def generate(canonical, options, *, name):
        files = {f"{name}.c": b"x", f"{name}.h": b"y"}
        return build.Built(files, ("a warning",), figures={"packed_weight_bytes": 1}, data_bytes=1)

    monkeypatch.setattr(build, "build", generate)
    folder = tmp_path / "2 nets"
    code, _, err = command("convert", canonical_file, "--output", folder, "--format", "c")
    assert (code, err) == (0, "tflite_tools: warning: a warning\n")
    assert sorted(os.listdir(folder)) == ["model_2_nets.c", "model_2_nets.h"]


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_end_in_one_line(command, canonical_file, flip, tmp_path, seed):
    canonical_file.write_bytes(flip(canonical_file.read_bytes(), seed, 60))
    path = tmp_path / "small.tflite"
    flags = ["--format", "int4", "--json"]
    code, out, err = command("convert", canonical_file, "--output", path, *flags)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert not path.exists()


def test_inspect_json(command, model_file):
    code, out, _ = command("inspect", model_file, "--json")
    assert code == 0
    fields = json.loads(out)
    assert sum(fields["size_by_category"].values()) == model_file.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is needed: quantize, convert, verify, compare, inspect"),
        (["convrt"], "no command 'convrt': did you mean 'convert'?"),
        (
            ["xyz"],
            "no command 'xyz' (there are quantize, convert, verify, compare, inspect, benchmark, "
            "report, completion)",
        ),
        (["convert", "x", "--ouput", "y"], "unknown flag '--ouput': did you mean '--output'?"),
        (["inspect", "x", "--jsn"], "unknown flag '--jsn': did you mean '--json'?"),
        (["verify", "x", "--min-top=0.9"], "unknown flag '--min_top': did you mean '--min_top1'?"),
        (["inspect", "x", "y"], "unexpected argument 'y'"),
        (["convert", "x", "--output", "y", "--format", "int2"], "did you mean 'int8'?"),
        (["convert", "x", "-o", "y", "--target", "esp"], "'esp' (there are any, litert, tflm"),
        (["report", "x", "-o", "y", "--card", "label=real"], "did you mean 'labels'?"),
        (["convert", "x", "--output", "y", "--split_convs", "0"], "'0' is no whole number from 1"),
        (["convert", "x", "-o", "y", "--recipe", "r.json"], "Give it to tfbinreg.quantize_apply"),
        (["convert", "x", "-o", "y", "--recipe_output", "r"], "goes with --flash_budget"),
        (["compare", "x"], "the following arguments are required: B"),
        (["inspect"], "the following arguments are required: FILE"),
        (["convert", "x"], "the following arguments are required: -o/--output"),
        (["convert", "x", "--output", "y", "--input_type", "int4"], "invalid choice: 'int4'"),
        (["convert", "x", "--output", "y", "--input_shape", "8x8"], "'8x8' is no shape: write"),
        (["verify", "x", "--samples", "0"], "'0' is no whole number from 1 up"),
        (["verify", "x", "--seed", "-1"], "'-1' is no whole number from 0 up"),
        (["verify", "x", "--min_top1", "high"], "invalid float value"),
    ],
)
def test_usage_errors(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tflite_tools: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.fixture(scope="module")
def other_formats(two_bits):
    return {"slim": slim.encode(two_bits)[0].data, "tables": lut.encode(two_bits)[0].data}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing"], "Cannot read 'missing'"),
        (["inspect", "{named}x"], "/bad.tflite'?"),
        (["verify", "missing"], "Cannot read 'missing'"),
        (["verify", "{model}", "--min_top1", "2"], "min_top1 must be from 0 to 1"),
        (["verify", "{model}", "--inputs", "missing"], "Cannot read 'missing'"),
        (["verify", "{model}", "--inputs", "{model}"], "is no .npy or .npz file"),
        (["verify", "{model}", "--reference", "missing"], "Cannot read 'missing'"),
        (["verify", "{model}", "--canonical", "missing"], "Cannot read 'missing'"),
        (
            ["verify", "away", "--reference", "missing", "--inputs", "gone"],
            "Cannot read 'away', 'missing', 'gone'",
        ),
        (["compare", "{model}", "missing"], "Cannot read 'missing'"),
        (["benchmark", "missing"], "Cannot read 'missing'"),
        (["report", "{model}", "--output", "r.html", "--reference", "missing"], "'missing'"),
        (["convert", "missing", "--output", "out.tflite"], "Cannot read 'missing'"),
        (["verify", "{model}", "--labels", "{npy}"], "are those of the samples of --inputs"),
        (
            ["verify", "{model}", "--inputs", "{npy}", "--labels", "{npy}"],
            "must be 4 whole numbers for 4 samples, got float64 of shape (4, 8, 8, 3)",
        ),
        (["verify", "{model}", "--inputs", "{one}"], "the axis of samples: give array[None]"),
        (["verify", "{model}", "--inputs", "{flat}"], "got float32 of shape (4, 192): give an"),
        (["inspect", "{net}"], "is a Keras model, where a .tflite file is expected: write one"),
        (["verify", "{net}", "--reference", "{net}"], "is a Keras model, where a .tflite"),
        (["benchmark", "{net}"], "is a Keras model, where a .tflite"),
        (["convert", "{net}", "--output", "x.keras"], "Give another name, 'x.tflite'"),
        (["convert", "{net}", "-o", "x.tflite", "--format", "c"], "Give another name, 'x'"),
        (["report", "{model}", "-o", "r.keras"], "is an HTML page. Give another name, 'r.html'"),
        (["convert", "{slim}", "-o", "x", "--format", "c"], "--slim or --target ethos-u has"),
        (["convert", "{model}", "-o", "x", "--output_type", "int8"], "are for Keras models"),
        (["verify", "{slim}"], "give --reference with the trained model, or --canonical"),
        (["convert", "{net}", "--output", "."], "it is a folder"),
        (["convert", "{net}", "--output", "{model}/x"], "is not a folder"),
        (["convert", "{junk}", "--output", "out.tflite"], "cannot be read as a Keras model"),
        (["convert", "{short}", "--output", "out.tflite"], "damaged or cut short"),
        (["convert", "{model}", "--output", "out.tflite", "--split_convs", "9"], "format lut"),
        (["convert", "{model}", "--output", "x", "--format", "lut", "--target", "litert"], "TFLM"),
        (["convert", "{model}", "--output", "x", "--input_type", "int8"], "are for Keras models"),
        (["convert", "{model}", "--output", "x", "--input_shape", "8,8,3"], "is for Keras models"),
        (["convert", "{model}", "--output", "{model}", "--format", "c"], "is a folder of C"),
        (
            ["convert", "{net}", "-o", "y", "--flash_budget", "9KB", "--data", "{npy}", "--slim"],
            "--flash_budget writes the int8 file",
        ),
        (["convert", "{model}", "--output", "/proc/x", "--format", "int4"], "Cannot write"),
        (["convert", "{model}", "--output", "{model}", "--slim"], "needs this file itself"),
        (["convert", "{net}", "--output", "{net}"], "Give another name"),
        (
            ["convert", "{net}", "--output", "y", "--flash_budget", "9KB", "--data", "{npy}"]
            + ["--recipe_output", "./y"],
            "needs this file itself",
        ),
        (
            ["convert", "{net}", "--output", "y", "--flash_budget", "9KB", "--data", "{npy}"]
            + ["--recipe", "{npy}"],
            "--recipe is not read: --flash_budget chooses the bits and writes a recipe",
        ),
        (["report", "{model}", "--output", "{model}"], "Give another name"),
        (
            ["report", "{model}", "--canonical", "{short}", "--output", "{short}"],
            "needs this file itself",
        ),
        (["verify", "{short}", "--canonical", "{model}"], "damaged or cut short"),
        (["verify", "{model}", "--canonical", "{junk}"], "Not a TFLite model"),
        (["verify", "{model}", "--canonical", "{model}", "--reference", "{model}"], "not both"),
        (["verify", "{tables}"], "is verified against what it was made from: give --reference"),
        (["compare", "{model}", "{junk}"], "Not a TFLite model"),
        (["compare", "{short}", "{model}"], "/short': The TFLite model is damaged or cut short"),
        (["verify", "{model}", "--canonical", "{named}"], "/bad.tflite': Not a TFLite model"),
        (["convert", "{named}", "--output", "x", "--format", "int4"], "Not a TFLite model"),
        (["convert", "{net}", "--output", ""], "name of the file is empty"),
        (
            ["convert", "{model}", "--output", "y", "--flash_budget", "9KB", "--data", "{npy}"],
            "needs a float Keras model",
        ),
        (["compare", "{model}", "{tables}"], "another shape or type"),
        (["compare", "{model}", "{model}", "--max_lsb", "-1"], "must not be negative"),
    ],
)
def test_errors_are_one_line(
    command, model_file, keras_file, other_formats, tmp_path, arguments, message
):
    paths = {"model": model_file, "net": keras_file}
    contents = {
        **other_formats,
        "junk": b"not a model at all",
        "short": model_file.read_bytes()[:3000],
    }
    for name, data in contents.items():
        paths[name] = tmp_path / name
        paths[name].write_bytes(data)
    paths["named"] = tmp_path / "bad.tflite"
    paths["named"].write_bytes(contents["junk"])
    paths["npy"] = tmp_path / "x.npy"
    np.save(paths["npy"], np.zeros((4, 8, 8, 3)))
    paths["one"], paths["flat"] = tmp_path / "one.npy", tmp_path / "flat.npy"
    np.save(paths["one"], np.zeros((8, 8, 3)))
    np.save(paths["flat"], np.zeros((4, 192)))
    code, out, err = command(*(argument.format(**paths) for argument in arguments))
    assert (code, out) == (1, "")
    assert err.startswith("tflite_tools: error: ")
    assert err.count("\n") == 1
    if "needs TensorFlow" in err:
        pytest.skip(err)
    assert message in err
    assert not os.path.exists("out.tflite")


def test_c_does_not_replace_files_of_others(command, canonical_file, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    flags = ["--output", folder, "--format", "c"]
    code, out, err = command("convert", canonical_file, *flags)
    assert (code, out) == (1, "")
    assert "main.c there was not generated by tflite_tools" in err
    assert os.listdir(folder) == ["main.c"]
    (folder / "main.c").unlink()
    for _ in range(2):  # what was generated is replaced
        assert command("convert", canonical_file, *flags)[0] == 0


def test_a_full_disk_leaves_nothing(command, saved_net, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = command("convert", saved_net, "--output", tmp_path / "model.tflite")
    assert code == 1
    assert "No space left on device" in err
    assert os.listdir(tmp_path) == []


def test_unforeseen_errors_have_their_type(command, model_file, monkeypatch):
    def fail(path):
        raise KeyError("scale\nbroken")

    monkeypatch.setattr(files, "read", fail)
    code, _, err = command("inspect", model_file)
    assert code == 1
    assert err == "tflite_tools: error: KeyError: 'scale\\nbroken'\n"
    code, _, err = command("inspect", model_file, "--verbose")
    assert "Traceback" in err


def test_interruptions_are_quiet(command, model_file, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "read", interrupt)
    assert command("inspect", model_file) == (130, "", "tflite_tools: interrupted\n")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("c", []),
        pytest.param("int8", ["--slim"], marks=pytest.mark.slow),
        pytest.param("int4", [], marks=pytest.mark.slow),
        pytest.param("lut", [], marks=pytest.mark.slow),
        pytest.param("lut", ["--slim"], marks=pytest.mark.slow),
        pytest.param(
            "int4", ["--input_type", "float32", "--output_type", "int8"], marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.slow
def test_what_was_made_of_a_model_is_verified_against_it(
    command, saved_packable, tmp_path, kind, more
):
    """By the command that `convert` prints."""
    if kind in ("lut", "c") and not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    output = tmp_path / "my net"
    flags = ["--format", kind, "--output", output, *more]
    code, out, _ = command("convert", saved_packable, *flags)
    assert code == 0
    check = shlex.split(out.splitlines()[-1].removeprefix("check it: "))
    assert check == ["tflite_tools", "verify", str(output), "--reference", str(saved_packable)]
    code, out, _ = command(*check[1:], "--samples", 4)
    assert code == 0 and "verified" in out
    code, out, _ = command("convert", saved_packable, *flags, "--json")
    assert json.loads(out)["check"] == shlex.join(check)


@pytest.mark.slow
def test_types_of_inputs_and_outputs_are_apart(command, saved_net, tmp_path):
    path = tmp_path / "model.tflite"
    for into, out in (("float32", "int8"), ("int8", "float32")):
        flags = ["--input_type", into, "--output_type", out]
        assert command("convert", saved_net, "-o", path, *flags)[0] == 0
        model = load(path.read_bytes())
        places = (*model.main.inputs, *model.main.outputs)
        assert [model.main.tensors[i].dtype.lower() for i in places] == [into, out]
        flags = ["--reference", saved_net, "--samples", 4]
        assert command("verify", path, *flags)[0] == 0


class TestReport:
    def test_writes_a_page_and_verifies(self, command, model_file, saved_net, tmp_path):
        page = tmp_path / "report.html"
        arguments = ["report", model_file, "--output", page, "--samples", 4, "--card", "epochs=12"]
        code, out, err = command(*arguments, "--reference", saved_net)
        assert (code, err) == (0, "")
        assert "verified" in out
        text = page.read_text()
        assert text.startswith("<!DOCTYPE html>") and "<td>epochs</td>" in text
        assert "<h2>Rounding</h2>" in text and "on 4 inputs" in text
        for name in ("int8", "int4", "lut", "c", "slim"):
            assert f">{name}</th>" in text or f"{name}: not made. " in text
        code, out, _ = command(*arguments, "--json")
        assert code == 0 and json.loads(out)["passed"] is True

    def test_a_failed_check_is_on_the_page_and_in_the_exit_code(
        self, command, model_file, edit, tensor_of, tmp_path
    ):
        def damage(container):
            tensor_of(container, "conv").quantization.zeroPoint = np.array([100])

        model_file.write_bytes(edit(load(model_file.read_bytes()), damage).data)
        code, out, _ = command("report", model_file, "--samples=4", "--output", tmp_path / "r.html")
        assert code == 1 and "verification FAILED" in out
        assert "class='failed'" in (tmp_path / "r.html").read_text()

    def test_a_file_of_another_format(self, command, canonical_file, tmp_path):
        if not runtime.available(runtime.TFLM):
            pytest.skip("tflite_micro is not installed")
        small, page = tmp_path / "small.tflite", tmp_path / "r.html"
        small.write_bytes(lut.encode(load(canonical_file.read_bytes()))[0].data)
        flags = ["--canonical", canonical_file, "--samples=4", "--output", page]
        code, _, err = command("report", small, *flags)
        assert (code, err) == (0, "")
        assert ">slim</th>" in page.read_text()
        assert "<td>head_softmax</td>" in page.read_text()

    @pytest.mark.parametrize("card", ["epochs", "epoch=3", "=3"])
    def test_wrong_cards(self, command, model_file, card):
        code, _, err = command("report", model_file, "--output", "r.html", "--card", card)
        assert code == 2 and "is not FIELD=TEXT with one of data, labels" in err
