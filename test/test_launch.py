"""Launch files, parameters, the viewers' configurations and the Fast DDS profile, as far as they can be tried here."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node

from monet_perception.nodes.outputs import TOPICS
from monet_perception.nodes.settings import SPECS

SHARE = Path(sys.prefix) / "share" / "monet_perception"
LAUNCH, CONFIG = SHARE / "launch", SHARE / "config"
EXECUTABLES = {"decompose", "demo", "camera", "viewer"}
OUTPUTS = {f"/scene/{name}" for name in TOPICS}


def calls(path: Path, function: str) -> list[ast.Call]:
    """All calls of a function in a Python file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == function]


def keywords(call: ast.Call) -> dict[str, object]:
    """The keyword arguments of a call that are literals."""
    found = {}
    for keyword in call.keywords:
        if keyword.arg and isinstance(keyword.value, ast.Constant):
            found[keyword.arg] = keyword.value.value
    return found


def constant(path: Path, name: str) -> object:
    """The literal that a module assigns to a name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} has no {name}")


@pytest.mark.parametrize("name", ["decompose", "demo"])
def test_launch_files_name_what_is_installed(name: str):
    path = LAUNCH / f"{name}.launch.py"
    nodes = [keywords(call) for call in calls(path, "Node")]
    ours = [node["executable"] for node in nodes if node["package"] == "monet_perception"]
    assert ours
    assert set(ours) <= EXECUTABLES
    text = path.read_text()
    files = [LAUNCH / file for file in re.findall(r'LAUNCH / "([^"]+)"', text)]
    files += [CONFIG / file for file in re.findall(r'CONFIG / "([^"]+)"', text)]
    assert files
    assert [file for file in files if not file.is_file()] == []


def test_launch_arguments_are_described_and_used():
    path = LAUNCH / "decompose.launch.py"
    arguments = {call.args[0].value: call for call in calls(path, "DeclareLaunchArgument")}  # type: ignore[attr-defined]
    wanted = {"image", "depth", "camera_info", "checkpoint", "device", "namespace", "overlay", "rviz", "autostart"}
    assert wanted | {"transport", "fastdds_profile", "params_file"} <= set(arguments)
    assert all("description" in {keyword.arg for keyword in call.keywords} for call in arguments.values())
    parameters = set(constant(path, "PARAMETERS"))  # type: ignore[call-overload]
    assert parameters <= set(arguments)
    assert parameters <= {spec.name for spec in SPECS}
    used = set(re.findall(r'value\["(\w+)"\]', path.read_text())) | parameters | {"image", "depth", "camera_info"}
    assert used == set(arguments)


def test_viewers_are_moved_to_every_output():
    assert set(constant(LAUNCH / "decompose.launch.py", "OUTPUTS")) == set(TOPICS)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("namespace", "given"), [("/", {}), ("/front/left", {}), ("/", {"min_area": 0.1, "device": "cuda:1"})]
)
def test_parameter_file_is_the_table(namespace: str, given: dict[str, object], tmp_path: Path):
    """Read by ROS's own parser, in any namespace, and overruled by what a later file says, as launch does it."""
    later = tmp_path / "later.yaml"
    later.write_text(yaml.safe_dump({"/**": {"ros__parameters": given or {"other": 1}}}))
    context = Context()
    files = ["--ros-args", "--params-file", str(CONFIG / "decompose.yaml"), "--params-file", str(later)]
    rclpy.init(args=files, context=context)
    try:
        node = Node(
            "decompose", namespace=namespace, context=context, automatically_declare_parameters_from_overrides=True
        )
        found = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
        node.destroy_node()
    finally:
        context.try_shutdown()
    expected = {spec.name: spec.default for spec in SPECS} | given
    assert {name: found.get(name) for name in expected} == expected


def test_parameter_file_tells_ranges_and_choices():
    lines = {line.split(":")[0].strip(): line for line in (CONFIG / "decompose.yaml").read_text().splitlines()}
    for spec in SPECS:
        comment = lines[spec.name].partition("#")[2]
        assert all(choice in comment for choice in spec.choices)
        if spec.least is not None:
            assert f"{spec.least:g} to {spec.most:g}" in comment


def test_rviz_shows_camera_overlay_and_labels():
    displays = yaml.safe_load((CONFIG / "decompose.rviz").read_text())["Visualization Manager"]["Displays"]
    images = [display["Topic"]["Value"] for display in displays if display["Class"].endswith("/Image")]
    assert images[:3] == ["/camera/image", "/scene/overlay", "/scene/labels"]
    topics = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    assert topics <= OUTPUTS | {"/camera/image"}
    assert {"/scene/markers", "/scene/cloud"} <= topics


def test_foxglove_layout_hangs_together():
    layout = json.loads((CONFIG / "foxglove.json").read_text())

    def panels(part: str | dict) -> list[str]:
        return [part] if isinstance(part, str) else panels(part["first"]) + panels(part["second"])

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    topics = set(re.findall(r'"(/scene/\w+)', json.dumps(layout)))
    assert topics == OUTPUTS


def test_fast_dds_takes_the_profile():
    """The process's own shared-memory segment is the profile's 8 MiB and not the default's 512 KiB."""
    code = textwrap.dedent("""
        import re, rclpy
        rclpy.init()
        node = rclpy.create_node("probe")
        for line in open("/proc/self/maps"):
            if re.search(r"/dev/shm/fastrtps_[0-9a-f]+$", line.strip()):
                begin, end = line.split()[0].split("-")
                print(int(end, 16) - int(begin, 16))
        node.destroy_node()
        rclpy.shutdown()
    """)

    def segments(**environment: str) -> list[int]:
        result = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        assert "XMLPARSER" not in result.stderr, result.stderr
        return [int(line) for line in result.stdout.split()]

    assert max(segments()) < 2**20
    assert max(segments(FASTRTPS_DEFAULT_PROFILES_FILE=str(CONFIG / "fastdds.xml"))) > 2**23


@pytest.mark.skipif(shutil.which("ros2") is None, reason="`ros2 launch` comes with a ROS installation")
@pytest.mark.parametrize("name", ["decompose", "demo"])
def test_ros2_launch_loads_the_files(name: str):
    command = ["ros2", "launch", str(LAUNCH / f"{name}.launch.py"), "--show-args"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "'fastdds_profile':" in result.stdout
