"""Generated C as libraries, components, modules and packs: what the formats ask for, and examples
that run on this computer with the few words that they use of each platform."""

import json
import pathlib
import re
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml
from package_examples import EXAMPLES, attached, built

from tflite_tools.c import generate, host_run, packages, source_folder
from tflite_tools.device.conversation import Conversation
from tflite_tools.formats import build
from tflite_tools.formats.build import Options
from tflite_tools.running import runtime
from tflite_tools.schema.contents import load
from tflite_tools.system import files

SEVERAL = pathlib.Path(__file__).parents[2] / "golden" / "joined" / "int8.tflite"
GENERATED = re.compile(r"generated (by tflite_tools|from the trained model)", re.IGNORECASE)


@pytest.fixture(scope="module")
def several():
    """A file with two inputs and two outputs."""
    return load(SEVERAL.read_bytes())


@pytest.fixture(scope="module")
def packed(several):
    """The files of every package, by its name."""
    sources = generate.generate(several, name="two_ways")
    return {
        package: packages.pack(sources, several, name="two_ways", package=package)
        for package in packages.PACKAGES
    }


@pytest.fixture
def written(packed, tmp_path):
    """Writes a package into a folder."""

    def write(package, **changed):
        contents = {**packed[package], **changed}
        files.write_folder(tmp_path / "pack", {n: t.encode() for n, t in contents.items()})
        return tmp_path / "pack"

    return write


def said(program):
    """What an example prints."""
    done = subprocess.run(
        [program], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout


# What the counter of each example counts, and in how much of a second, with the platforms of here.
COUNTERS = {
    "arduino": ("microseconds", 1_000_000),
    "platformio": ("microseconds", 1_000_000),
    "esp-idf": ("cycles", 160_000_000),
    "zephyr": ("ticks", 1000),
    "cmsis-pack": ("ticks", 0),
}


@pytest.mark.parametrize("package", packages.PACKAGES)
def test_the_example_runs_and_its_outputs_are_right(written, several, package, tmp_path):
    program = built(written(package), package, tmp_path)
    text = said(program)
    assert re.fullmatch(r"two_ways: \d+ [a-zA-Z0-9 ]+, outputs are right\n", text), text
    with attached(program) as port:
        talk = Conversation(port, name=package)
        talk.load(b"".join(values.tobytes() for values in packages.inputs_of(several)))
        assert (talk.run() > 0) == (talk.hello.hz > 0)
        outputs = np.frombuffer(talk.outputs(), np.int8)
    assert (talk.hello.unit, talk.hello.hz) == COUNTERS[package]
    assert packages.hash_of([outputs]) == talk.hello.outputs_hash


def test_the_example_sees_a_wrong_weight(written, packed, tmp_path):
    source = packed["esp-idf"]["src/two_ways.c"]
    wrong = re.sub(
        r"(weights_0\[\d+\] = \{\s*)(\d+)",
        lambda match: f"{match[1]}{int(match[2]) ^ 0x55}",
        source,
        count=1,
    )
    assert wrong != source
    folder = written("esp-idf", **{"src/two_ways.c": wrong})
    assert "outputs are WRONG" in said(built(folder, "esp-idf", tmp_path))


def test_the_expected_outputs_are_those_of_tflm(several, packed):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    inputs = packages.inputs_of(several)
    assert all(values.dtype == np.int8 and np.unique(values).size > 1 for values in inputs)
    outputs = runtime.run(several, inputs, runtime=runtime.TFLM).outputs
    found = f"0x{packages.hash_of(outputs):08x}u"
    assert all(
        found in files[path] for files in packed.values() for path in files if "infer.h" in path
    )


@pytest.mark.parametrize(
    ("data", "value"), [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)]
)
def test_the_hash_is_fnv_1a(data, value):
    """Values from the page of the hash's authors (Fowler, Noll, Vo)."""
    assert packages.hash_of([np.frombuffer(data, np.int8)]) == value


def test_without_tflm_the_compiled_c_tells_the_outputs(several, packed, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)
    sources = generate.generate(several, name="two_ways")
    made = packages.pack(sources, several, name="two_ways", package="arduino")
    assert made == packed["arduino"]
    monkeypatch.setattr(host_run, "compiler", lambda: None)
    with pytest.raises(RuntimeError, match="--package needs TFLM or a C compiler"):
        packages.pack(sources, several, name="two_ways", package="arduino")


def test_a_template_with_an_unknown_word_is_an_error():
    with pytest.raises(KeyError, match="nobody"):
        packages.filled("a @nobody@", {"name": "x"})


@pytest.mark.parametrize("package", packages.PACKAGES)
def test_every_file_says_that_it_was_generated_and_may_be_replaced(written, packed, package):
    folder = written(package)
    assert sorted(packed[package]) == sorted(packages.paths("two_ways", package))
    assert all("@" not in text for name, text in packed[package].items() if "src/" not in name)
    source_folder.check_replaceable(folder, packages.paths("two_ways", package))
    (folder / next(iter(EXAMPLES[package][:1]))).write_text("mine")
    with pytest.raises(ValueError, match="was not generated by tflite_tools"):
        source_folder.check_replaceable(folder, packages.paths("two_ways", package))


@pytest.mark.parametrize("package", packages.PACKAGES)
def test_a_package_is_read_back_as_the_network_in_it(written, several, package):
    plain = generate.generate(several, name="two_ways").files
    folder = written(package)
    found = source_folder.read(folder)
    assert (found.name, found.files) == ("two_ways", plain)
    (folder / "extras" / "main.c").unlink()
    with pytest.raises(ValueError, match=r"has no main\.c"):
        source_folder.read(folder)


def test_a_folder_with_sources_and_a_package_is_refused(written, several):
    folder = written("zephyr")
    for name, text in generate.generate(several, name="two_ways").files.items():
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=r"must hold one network"):
        source_folder.read(folder)


def test_options():
    assert Options(format="c", package="zephyr").package == "zephyr"
    with pytest.raises(ValueError, match="--package is for --format c"):
        Options(package="zephyr")
    with pytest.raises(ValueError, match="There is no package 'mbed'"):
        Options(format="c", package="mbed")


def test_a_package_is_built_with_the_figures_of_its_c(several):
    built = build.build(several, Options(format="c", package="arduino"), name="two_ways")
    plain = build.build(several, Options(format="c"), name="two_ways")
    assert sorted(built.files) == sorted(packages.paths("two_ways", "arduino"))
    assert (built.figures, built.data_bytes) == (plain.figures, plain.data_bytes)


def test_arduino_properties(packed):
    """Arduino's library specification: the fields of a library.properties file."""
    lines = packed["arduino"]["library.properties"].splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    needed = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category"}
    assert needed | {"url", "architectures", "includes"} == fields.keys()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert not fields["name"].lower().startswith("arduino")
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"] == "Data Processing"  # one of the eleven that there are
    assert f"src/{fields['includes']}" in packed["arduino"]
    folders = {pathlib.PurePath(p).parts[0] for p in packed["arduino"] if "/" in p}
    assert folders == {"src", "examples", "extras"}  # what an IDE knows and does not compile


def test_platformio_manifest(packed):
    """PlatformIO's library.json: its fields, and files that are there."""
    manifest = json.loads(packed["platformio"]["library.json"])
    known = {"name", "version", "description", "keywords", "frameworks", "platforms", "headers"}
    assert manifest.keys() == known | {"examples", "build"}
    assert len(manifest["description"]) <= 255 and len(manifest["name"]) <= 100
    assert f"src/{manifest['headers']}" in packed["platformio"]
    (example,) = manifest["examples"]
    listed = {f"{example['base']}/{file}" for file in example["files"]}
    assert listed == {path for path in packed["platformio"] if path.startswith(example["base"])}


def test_esp_idf_component(packed):
    """ESP-IDF: sources that are there, a manifest of known fields, an example that finds it."""
    made = packed["esp-idf"]
    called = re.search(
        r"idf_component_register\(SRCS \"(.*)\" INCLUDE_DIRS", made["CMakeLists.txt"]
    )
    assert called[1] in made
    manifest = yaml.safe_load(made["idf_component.yml"])
    assert manifest.keys() == {"version", "description", "dependencies", "examples"}
    assert all(f"{item['path']}/CMakeLists.txt" in made for item in manifest["examples"])
    project = made["examples/infer/CMakeLists.txt"]
    order = [project.index(word) for word in ("EXTRA_COMPONENT_DIRS", "project.cmake", "project(")]
    assert order == sorted(order)  # ESP-IDF reads the variable when its project.cmake is included


def test_zephyr_module(packed):
    """Zephyr: module.yml, an option that the sample sets, and sources that are there."""
    made = packed["zephyr"]
    module = yaml.safe_load(made["zephyr/module.yml"])
    assert module.keys() == {"name", "build", "samples"}
    assert module["build"]["kconfig"] in made
    cmake = made[f"{module['build']['cmake']}/CMakeLists.txt"]
    source = re.search(r"zephyr_library_sources\(\.\./(.*)\)", cmake)[1]
    assert source in made
    option = re.search(r"^config (\w+)$", made["zephyr/Kconfig"], re.MULTILINE)[1]
    assert f"if(CONFIG_{option})" in cmake
    assert f"CONFIG_{option}=y" in made["samples/infer/prj.conf"]
    tests = yaml.safe_load(made["samples/infer/sample.yaml"])["tests"]
    (pattern,) = tests["two_ways.infer"]["harness_config"]["regex"]
    assert re.fullmatch(pattern, "two_ways: 12 cycles of a clock of 9 Hz, outputs are right")


def test_cmsis_pack_description(packed):
    """Open-CMSIS-Pack: the file's name, the order of its elements, and files that are there."""
    made = packed["cmsis-pack"]
    root = ET.fromstring(made["tfbinreg.two_ways.pdsc"].encode())
    order = [element.tag for element in root]
    assert order == ["vendor", "name", "description", "url", "releases", "keywords", "components"]
    assert f"{root.findtext('vendor')}.{root.findtext('name')}" == "tfbinreg.two_ways"
    (release,) = root.find("releases")
    assert re.fullmatch(r"\d+\.\d+\.\d+", release.get("version"))
    (component,) = root.find("components")
    assert component.get("Cversion") == release.get("version")
    for file in component.find("files"):
        folder = file.get("category") == "include"
        name = file.get("name")
        assert name.endswith("/") == folder
        assert any(path.startswith(name) if folder else path == name for path in made)
