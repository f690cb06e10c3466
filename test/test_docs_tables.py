"""The tables of the docs say what the code says."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_pages import PAGES, ROOT, declared, inline, table
from rclpy.qos import QoSProfile

from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes import diagnostics, inputs, outputs
from monet_perception.nodes.parameters import Spec
from monet_perception.nodes.settings import SPECS
from monet_perception.raw_images import COLOUR_ENCODINGS
from train.model_names import model_name

DOCS = ROOT / "docs"
NODE = DOCS / "node.md"


def plain(cell: str) -> str:
    return cell.replace("`", "")


def values(spec: Spec) -> str:
    if spec.choices:
        return ", ".join(spec.choices)
    if spec.least is not None and spec.most is not None:
        return f"{spec.least:g} to {spec.most:g}"
    return "true, false" if isinstance(spec.default, bool) else "text"


def message_type(kind: Any) -> str:
    return "{}/{}/{}".format(*kind.__module__.split(".")[:2], kind.__name__)


def quality(profile: QoSProfile) -> tuple[str, str]:
    return profile.reliability.name.lower().replace("_", " "), str(profile.depth)


def test_every_parameter_is_listed_with_its_default_range_and_description():
    expected = [
        [
            spec.name,
            str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default) or '""',
            values(spec),
            "running" if spec.running else "configure",
            spec.description,
        ]
        for spec in SPECS
    ]
    found = [[*map(plain, row[:4]), row[4]] for row in table(NODE, "Parameters")]
    assert found == expected


def test_every_output_is_listed_with_its_type_and_qos():
    rows = {plain(row[0]): row for row in table(NODE, "Outputs")}
    assert plain(rows.pop("/diagnostics")[1]) == "diagnostic_msgs/msg/DiagnosticArray"
    expected = {f"scene/{name}": message_type(kind) for name, kind in outputs.TOPICS.items()}
    assert {name: plain(row[1]) for name, row in rows.items()} == expected
    assert quality(outputs.QOS) == ("reliable", "1")
    assert "is reliable with a depth of 1" in " ".join(NODE.read_text().split())


def test_every_input_is_listed_with_its_qos():
    found = {plain(row[0]): tuple(row[2:4]) for row in table(NODE, "Inputs")}
    newest, last_few, latched = map(quality, (inputs.NEWEST, inputs.LAST_FEW, inputs.LATCHED))
    assert found == {
        "image": newest,
        "image/compressed": newest,
        "depth": last_few,
        "depth/compressedDepth": last_few,
        "camera_info": latched,
    }


def test_every_encoding_is_listed():
    text = " ".join(NODE.read_text().split())
    listed = re.search(r"Encodings: (.*?)\. ", text)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == list(COLOUR_ENCODINGS)


def test_diagnostics_are_explained_as_in_the_code():
    in_code = [line for line in (diagnostics.__doc__ or "").splitlines() if line.startswith("|")][2:]
    in_docs = ["| " + " | ".join(row) + " |" for row in table(NODE, "Diagnostics")]
    assert [plain(row) for row in in_docs] == [plain(row) for row in in_code]


def test_what_troubleshooting_quotes_is_what_the_node_says():
    says = "".join(path.read_text() for path in (ROOT / "monet_perception/nodes").glob("*.py"))
    for row in table(DOCS / "troubleshooting.md", "No slots arrive"):
        for quoted in re.findall(r"`([^`]+)`", row[0]):
            for fragment in re.split(r"\.\.\.|unconfigured|inactive", quoted):
                assert fragment.strip(" ()") in says, fragment


def test_every_launch_argument_is_listed():
    rows = {plain(name): (plain(default), what) for name, default, what in table(NODE, "Launch arguments")}
    arguments = declared("decompose.launch.py")
    assert list(rows) == list(arguments)
    for name, (default, description) in arguments.items():
        if default is not None:
            assert rows[name][0] == (default or "empty"), name
        assert rows[name][1].replace("FASTRTPS_DEFAULT_PROFILES_FILE", "") == description, name
    text = " ".join(NODE.read_text().split())
    for name in declared("demo.launch.py"):
        assert f"`{name}`" in text.split("its arguments are")[1], name


def fields(definition: str) -> list[tuple[str, str]]:
    """Name and type of every field of a message definition."""
    lines = (line.split("#")[0].split() for line in definition.splitlines())
    return [(words[1], words[0]) for words in lines if len(words) == 2]


MESSAGES = ROOT / "monet_perception_msgs"


@pytest.mark.parametrize("name", ["SlotArray", "Slot"])
def test_every_field_of_a_message_is_listed(name):
    found = [(plain(row[0]), plain(row[1])) for row in table(DOCS / "messages.md", name)]
    assert found == fields((MESSAGES / "msg" / f"{name}.msg").read_text())


def test_every_field_of_the_service_is_listed():
    request, response = (MESSAGES / "srv/DecodeSlots.srv").read_text().split("---")
    page = (DOCS / "messages.md").read_text().split("## DecodeSlots")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [(plain(row[0]), plain(row[1])) for row in rows] == fields(request) + fields(response)


def test_tables_of_results_are_those_of_the_stored_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    monkeypatch.syspath_prepend(ROOT)
    assert importlib.import_module("docs.results.tables").main() == 0


def test_presets_have_their_names_and_numbers_of_weights():
    rows = {plain(row[0]): row for row in table(DOCS / "networks.md", "The networks")}
    counted = {}
    for name, config in PRESETS.items():
        with torch.device("meta"):  # shapes without the 200 MB
            monet = Monet(config, initialisation=None)
        parts = monet.attention, monet.component
        weights = [f"{sum(weight.numel() for weight in part.parameters()):,}" for part in parts]
        counted[name] = [model_name(config), *weights]
    assert {name: [row[1].replace("\\", ""), *row[5:7]] for name, row in rows.items()} == counted


def imported(part: str) -> set[str]:
    """Names of the libraries, and of the package's modules and folders, that one of these imports."""
    path = ROOT / "monet_perception" / part
    found = set()
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found |= {module.split(".")[module.startswith("monet_perception.")] for module in modules}
    return found - sys.stdlib_module_names - {"monet_perception"}


LIBRARIES = {
    "NumPy": {"numpy"},
    "SciPy": {"scipy"},
    "OpenCV": {"cv2"},
    "Pillow": {"PIL"},
    "ONNX": {"onnx", "onnx_ir", "onnxscript"},
    "ONNX Runtime": {"onnxruntime"},
    "OpenVINO": {"openvino"},
}
"""Those that are not imported by the name that index.md gives them."""


def test_every_part_imports_what_it_may():
    rows = table(DOCS / "index.md", "How a frame flows")[:-2]  # nodes and train may import all but each other
    named = [[Path(name).name for name in re.findall(r"`([^`]+)`", row[0])] for row in rows]
    parts = [{name.removesuffix(".py") for name in names} for names in named]
    for index, row in enumerate(rows):
        allowed = set(parts[index])
        for word in row[2].split(", "):
            if word == "the rows above":
                allowed |= set().union(*parts[:index])
            else:
                allowed |= parts[0] if word == "the first row" else LIBRARIES.get(word, {word})
        needed = set().union(*(imported(name) for name in named[index]))
        assert needed <= allowed, parts[index]
        assert allowed - set().union(*parts) <= needed, f"libraries that {parts[index]} don't import"
    modules = {path.stem for path in (ROOT / "monet_perception").glob("[!_]*.py")}
    assert modules <= set().union(*parts)
    assert "train" not in imported("nodes")
    assert "nodes" not in imported("../train")


def test_the_map_from_the_thesis_names_code_that_exists():
    for row in table(DOCS / "networks.md", "From the thesis to the code"):
        path = None
        for name in re.findall(r"`([^`]+)`", row[2]):
            if "/" in name:
                path = ROOT / name
                assert path.is_file(), name
            else:
                assert path is not None
                assert re.search(rf"^(class|def) {name}\b", path.read_text(), re.MULTILINE), f"{name} in {path}"


def test_every_recipe_and_every_benchmark_is_listed():
    recipes = [name for row in table(DOCS / "training.md", "Recipes") for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(recipes) == sorted(path.name for path in (ROOT / "config/train").glob("*.yaml"))
    benchmarks = [plain(row[1]).split(".")[-1] for row in table(DOCS / "performance.md", "Performance")]
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert set(benchmarks) == programs


FOLDERS = ("monet_perception/", "train/", "test/", "config/", "launch/", "benchmarks/", "examples/", "docs/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_and_modules_named_in_the_text_exist(page: Path):
    for token in inline(page):
        if token.type != "code_inline":
            continue
        name = token.content
        if name.startswith(FOLDERS) and not set(name) & set(" *{}") and "NAME" not in name:
            assert (ROOT / name).exists(), f"{page.name} names {name}"
        for module in re.findall(r"python -m ((?:train|benchmarks|monet_perception)[\w.]*)", name):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{page.name} names {module}"


def test_the_changelog_has_the_version_of_the_package():
    version = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    assert version is not None
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()
