"""The package as it is installed: what it brings, what it needs, and that both build routes make the same of it."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import distribution, packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import monet_perception

ROOT = Path(__file__).parents[1]
SHARE = Path(sys.prefix) / "share" / "monet_perception"
EXECUTABLES = {"decompose", "demo", "camera", "viewer"}
distributions_of_modules = functools.cache(packages_distributions)
ROS_INDEX = Path("share/ament_index/resource_index/packages")


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **options)


def imported(path: Path, *, everywhere: bool) -> set[str]:
    """Top-level names that a module imports when it is loaded, or `everywhere` also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"monet_perception", "train", "__future__"}


def named(*extras: str) -> set[str]:
    """Distributions that setup.py names without an extra or under one of these."""
    found = set()
    for requirement in map(Requirement, requires("monet_perception") or []):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            found.add(canonicalize_name(requirement.name))
    return found


def test_versions_agree():
    def xml_version(path: Path) -> str | None:
        return ET.parse(path).findtext("version")

    assert version("monet_perception") == monet_perception.__version__
    assert xml_version(ROOT / "package.xml") == monet_perception.__version__
    assert version("monet_perception_msgs") == xml_version(ROOT / "monet_perception_msgs" / "package.xml")
    assert f"version: {monet_perception.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_core_needs_no_ros():
    modules = [
        "monet_perception." + ".".join(path.relative_to(ROOT / "monet_perception").with_suffix("").parts)
        for path in (ROOT / "monet_perception").rglob("*.py")
        if "nodes" not in path.parts and path.name != "__init__.py"
    ]
    # None in sys.modules makes an import fail as if the package were not there.
    code = (
        f"import sys; sys.modules |= dict.fromkeys({package_xml('exec_depend')!r})\n"
        f"import importlib; [importlib.import_module(name) for name in {modules!r}]\n"
        "import monet_perception.nodes"
    )
    result = run(sys.executable, "-c", code, cwd=ROOT)
    assert result.returncode == 1
    assert result.stderr.rstrip().splitlines()[-1].startswith("ImportError: monet_perception.nodes needs ROS 2 Jazzy")


@pytest.mark.parametrize(
    ("folder", "extras", "everywhere"),
    [
        ("monet_perception", ("demo",), False),
        ("monet_perception/nodes", ("ros", "demo"), True),
        ("train", ("train", "render", "tensorflow", "explore"), True),
    ],
)
def test_what_is_imported_is_required(folder: str, extras: tuple[str, ...], everywhere: bool):
    known = distributions_of_modules()
    required = named(*extras)
    needs: dict[str, str] = {}
    for path in (ROOT / folder).rglob("*.py"):
        if folder == "monet_perception" and "nodes" in path.parts:
            continue
        for module in imported(path, everywhere=everywhere):
            distributions = {canonicalize_name(name) for name in known.get(module, [])}
            ros = any(f"ros-jazzy-{module}".replace("_", "-") in name for name in required)
            ros |= module in package_xml("exec_depend") and folder != "monet_perception"
            if not distributions & required and not ros:
                needs[module] = path.name
    assert not needs, "imported, but not named in setup.py"


def package_xml(tag: str) -> set[str]:
    return {element.text or "" for element in ET.parse(ROOT / "package.xml").iter(tag)}


def test_package_xml_names_every_ros_package():
    paths = [*(ROOT / "monet_perception" / "nodes").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    modules = set().union(*(imported(path, everywhere=True) for path in paths))
    ros = {name for name in modules if re.search(r"_msgs$|_interfaces$|^rcl|^launch|^ament_|^cv_bridge$", name)}
    assert {"rclpy", "sensor_msgs", "launch_ros"} <= ros
    assert ros <= package_xml("exec_depend")


def test_pip_installs_commands_that_answer():
    scripts = distribution("monet_perception").entry_points.select(group="console_scripts")
    assert scripts.names == {f"monet-{name}" for name in EXECUTABLES}
    for name in EXECUTABLES:
        result = run(Path(sys.executable).parent / f"monet-{name}", "--help")
        assert result.returncode == 0, result.stderr
        assert "usage:" in result.stdout


def test_ament_index_knows_the_package():
    for package in ("monet_perception", "monet_perception_msgs"):
        assert (Path(sys.prefix) / ROS_INDEX / package).is_file()
    assert (SHARE / "package.xml").read_bytes() == (ROOT / "package.xml").read_bytes()


@pytest.mark.parametrize("folder", ["launch", "config"])
def test_installed_files_are_the_checkout_s(folder: str):
    here = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir() if path.is_file()}
    there = {path.name: path.read_bytes() for path in (SHARE / folder).iterdir() if path.is_file()}
    assert here
    assert there == here, "copies are stale: pip install --no-deps -e ."


def test_a_full_disk_is_told_before_the_installation(tmp_path: Path):
    check = (ROOT / "tools" / "check_space.sh", tmp_path / "new" / ".venv")
    refused = run(*check, "1000000000")
    assert refused.returncode == 1
    assert "free some" in refused.stderr
    enough = run(*check, "0")
    assert (enough.returncode, enough.stderr) == (0, "")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout, built by colcon as the README says."""
    workspace = tmp_path_factory.mktemp("workspace")
    for name in ("launch", "config", "resource", "monet_perception", "monet_perception_msgs"):
        shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    for name in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, workspace)
    result = run("colcon", "build", "--base-paths", ".", "monet_perception_msgs", cwd=workspace, env=activated())
    assert result.returncode == 0, result.stdout + result.stderr
    return workspace


def activated() -> dict[str, str]:
    """The environment after `source .venv/bin/activate`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix}


@pytest.mark.timeout(900)
def test_colcon_builds_executables_that_run(workspace: Path):
    folder = Path("install/monet_perception/lib/monet_perception")
    assert {path.name for path in (workspace / folder).iterdir()} == EXECUTABLES
    for name in EXECUTABLES:
        command = f"source install/setup.bash && exec {folder / name} --help"
        result = run("bash", "-c", command, cwd=workspace, env=activated())
        assert result.returncode == 0, result.stderr
        assert "usage:" in result.stdout


@pytest.mark.timeout(900)
def test_colcon_s_code_and_messages_are_the_ones_used(workspace: Path):
    code = (
        "import monet_perception.region, monet_perception_msgs.msg;"
        "print(monet_perception.__file__, monet_perception_msgs.__file__)"
    )
    command = f'source install/setup.bash && exec python -P -c "{code}"'
    result = run("bash", "-c", command, cwd=workspace, env=activated())
    assert result.returncode == 0, result.stderr
    assert all(path.startswith(str(workspace / "install")) for path in result.stdout.split())


@pytest.mark.timeout(900)
def test_colcon_installs_what_pip_installs(workspace: Path):
    prefix = workspace / "install" / "monet_perception"
    assert (prefix / ROS_INDEX / "monet_perception").is_file()
    for folder in ("launch", "config"):
        assert {path.name for path in (prefix / "share/monet_perception" / folder).iterdir()} == {
            path.name for path in (ROOT / folder).iterdir() if path.is_file()
        }
    data = Path("monet_perception/data")
    installed = next(prefix.glob("lib/python3*/site-packages")) / data
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} == {
        path.relative_to(workspace / data) for path in (workspace / data).rglob("*") if path.is_file()
    }


@pytest.mark.timeout(900)
def test_colcon_links_for_those_who_edit(workspace: Path):
    bases = ["--build-base", "linked_build", "--install-base", "linked"]
    command = ["colcon", "build", "--base-paths", ".", "--packages-select", "monet_perception", "--symlink-install"]
    result = run(*command, *bases, cwd=workspace, env=activated())
    assert result.returncode == 0, result.stdout + result.stderr
    launch = workspace / "linked/monet_perception/share/monet_perception/launch/decompose.launch.py"
    assert launch.resolve() == workspace / "launch/decompose.launch.py"
