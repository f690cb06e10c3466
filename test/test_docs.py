"""README and docs work as written: code blocks run, what can't be run exists, links lead somewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import pytest
import rclpy
import yaml
from doc_pages import PAGES, ROOT, Block, anchors, blocks, declared, inline, languages, table
from monet_perception_msgs.msg import Slot, SlotArray
from ray_cast import write_clip
from rclpy.context import Context

from monet_perception.networks import MonetConfig
from monet_perception.nodes.settings import SPECS
from train import cli, fit, pretrain
from train.objective import GecoOptions

PYTHON, BASH = blocks("python"), blocks("bash")
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}"}
TIMEOUT = 280
"""Seconds for a command that takes a few on an idle machine."""

SHORTER = {
    "python -m train.fit": "--trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.limit_val_batches 1 "
    "--data.batch_size 2 --model.hold_attention_steps 1 --trainer.enable_progress_bar false",
    "monet-demo": "--clip clip.mcap",
}
"""What is added to commands that would take long; a later option overrules an earlier one."""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def run_here(module: str, arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """What `python -m MODULE` ends with and says, in this process, which has imported most of what modules import."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.redirect_stderr(io.StringIO()) as faults,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".* found in sys.modules")
        patch.chdir(folder)
        patch.syspath_prepend(ROOT)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return code, said.getvalue(), faults.getvalue()


def test_blocks_are_of_languages_that_are_tested():
    assert languages() == {"bash", "python", "yaml"}


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_block_is_a_slot_array(block: Block):
    shown = yaml.safe_load(block.text)
    assert set(shown) == set(SlotArray.get_fields_and_field_types())
    for slot in shown["slots"]:
        assert set(slot) == set(Slot.get_fields_and_field_types())


# Python


@pytest.mark.parametrize("block", [block for block in PYTHON if "rclpy.spin" not in block.text], ids=str)
def test_python_block_runs(block: Block, tmp_path):
    assert not block.not_run
    done = run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.text], tmp_path)
    assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("block", [block for block in PYTHON if "rclpy.spin" in block.text], ids=str)
def test_python_block_that_listens_prints_what_it_hears(block: Block, tmp_path):
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("decompose", context=context)
    publisher = node.create_publisher(SlotArray, "/scene/slots", 1)
    message = SlotArray(slots=[Slot(track_id=4711, area=0.25, latent_mean=[1.0, 2.0, 3.0, 4.0])])
    command = [sys.executable, "-u", "-c", block.text]
    with (tmp_path / "heard").open("w+") as heard:
        listener = subprocess.Popen(command, env=ENVIRONMENT, stdout=heard, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + TIMEOUT
            while "\n" not in (tmp_path / "heard").read_text() and listener.poll() is None:
                assert time.monotonic() < deadline, "nothing was printed"
                publisher.publish(message)
                time.sleep(0.1)
        finally:
            listener.send_signal(signal.SIGINT)
            listener.wait(TIMEOUT)
            node.destroy_node()
            rclpy.shutdown(context=context)
    assert (tmp_path / "heard").read_text().startswith("4711 0.250 [] array('f', [1.0, 2.0, 3.0])")


# Bash


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder that looks like the checkout; what commands write stays in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("config", "monet_perception", "train", "benchmarks", "examples", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "clip.mcap").symlink_to(write_clip(tmp_path_factory.mktemp("clip") / "clip.mcap"))
    return folder


def shorter(command: str) -> str:
    for beginning, options in SHORTER.items():
        if command.startswith(beginning) and "--help" not in command:
            return f"{command} {options}"
    return command


RUN = [block for block in BASH if not block.not_run]


@pytest.mark.parametrize("block", RUN, ids=str)
def test_bash_block_runs(block: Block, checkout):
    for command in block.commands():
        if command.startswith("make "):  # the test is itself run by one of them
            assert run(["bash", "-c", command.replace("make", "make --dry-run", 1)], ROOT).returncode == 0, command
            continue
        code, said, faults = run_as_in_a_shell(shorter(command), checkout)
        assert code == 0, f"{block}: {command}\n{said[-2000:]}\n{faults[-4000:]}"


def run_as_in_a_shell(command: str, folder: Path) -> tuple[int, str, str]:
    words = shlex.split(command)
    if command.startswith("python -m train.") and not set(command) & set("*?|&;<>$`"):
        return run_here(words[2], words[3:], folder)
    done = run(["bash", "-c", command], folder)
    return done.returncode, done.stdout, done.stderr


# Bash that can't run here: what it names exists.

NOT_RUN = [block for block in BASH if block.not_run]
COMMANDS = [(str(block), command) for block in NOT_RUN for command in block.commands()]


@cache
def help_of(program: str) -> str:
    """`--help` of `python -m MODULE [SUBCOMMAND]` or of an executable."""
    words = [*shlex.split(program), "--help"]
    if words[:2] != ["python", "-m"]:
        done = run(words, ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout
    code, told, _ = run_here(words[2], words[3:], ROOT)
    assert code == 0, program
    return told


def check_training(command: str) -> None:
    """train.fit and train.pretrain: their own parsers read the command as it stands, and say what they would do."""
    _, _, module, *arguments = shlex.split(command)
    if "--resume" in arguments:
        return
    make_cli = {"train.fit": fit.make_cli, "train.pretrain": pretrain.make_cli}[module]
    with contextlib.chdir(ROOT), pytest.raises(SystemExit) as ended:
        cli.main(make_cli, [*arguments, "--print_config"])
    assert not ended.value.code, command


def check_module(command: str) -> None:
    words = shlex.split(command)
    subcommand = [word for word in words[3:4] if re.fullmatch(r"[a-z]+", word)]
    text = help_of(" ".join([*words[:3], *subcommand]))
    for option in re.findall(r"(?<!\S)--[\w-]+", command):
        assert option in text, f"{option} in {command}"


def check_launch(command: str) -> None:
    _, _, package, file, *arguments = shlex.split(command)
    assert package == "monet_perception"
    known = declared(file)
    for argument in arguments:
        assert argument == "--show-args" or argument.split(":=")[0] in known, argument


def check_node(command: str) -> None:
    parameters = {spec.name for spec in SPECS}
    for name in re.findall(r"-p ([^\s:]+):=", command):
        assert name in parameters or name.startswith("qos_overrides./"), f"{name} in {command}"
    setup = (ROOT / "setup.py").read_text()
    executables = re.search(r"EXECUTABLES = \((.*)\)", setup)
    assert executables is not None
    words = command.split()
    name = words[3] if words[0] == "ros2" else words[0].removeprefix("monet-")
    assert f'"{name}"' in executables[1], name


def check_pip(command: str) -> None:
    assert (ROOT / "constraints.txt").is_file()
    setup = (ROOT / "setup.py").read_text()
    for extras in re.findall(r"\[([\w,]+)\]", command):
        for extra in extras.split(","):
            assert re.search(rf'^    "{extra}": ', setup, re.MULTILINE), f"extra {extra}"
    for folder in re.findall(r"\./(\S+)", command):
        assert (ROOT / folder / "pyproject.toml").is_file(), folder


def check_rosdep(command: str) -> None:
    skipped = re.search(r'--skip-keys "([^"]+)"', command)
    assert skipped is not None
    for key in skipped[1].split():
        assert f"<exec_depend>{key}</exec_depend>" in (ROOT / "package.xml").read_text(), key


def check_apt(command: str) -> None:
    for package in command.split()[3:]:
        assert f"[{package}]" in (ROOT / ".ci/run").read_text(), package


def check_make(command: str) -> None:
    assert run(["bash", "-c", command.replace("make", "make --dry-run", 1)], ROOT).returncode == 0, command


def check_colcon(command: str) -> None:
    base = [path.removeprefix("src/") for path in command.split("--base-paths")[1].split()]
    assert base == ["monet_perception", "monet_perception/monet_perception_msgs"]
    assert (ROOT / "monet_perception_msgs/package.xml").is_file()


def check_tool(command: str) -> None:
    assert os.access(ROOT / command.split()[0], os.X_OK), command


CHECKS = {
    r"python -m train\.(fit|pretrain)\b": check_training,
    r"python -m train\.": check_module,
    r"ros2 launch ": check_launch,
    r"(ros2 run monet_perception|monet-\w+) ": check_node,
    r"(venv/bin/)?pip install ": check_pip,
    r"rosdep install ": check_rosdep,
    r"sudo apt install ": check_apt,
    r"make ": check_make,
    r"tools/": check_tool,
    r"venv/bin/python -m colcon build ": check_colcon,
}
# Of ROS, Python and the shell; nothing of this project is named in them.
FOREIGN = (
    r"source |export |python3(\.12)? -m venv |ros2 lifecycle set /decompose \w+$|tensorboard |\.venv/bin/pre-commit "
)


def test_readme_names_the_libraries_that_ci_installs():
    installed = re.findall(r"^    \[([\w.+-]+)\]=", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text().split("## On a robot")[0]
    assert len(installed) > 5
    assert [name for name in installed if name not in {"g++", "make"} and name not in readme] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "Makefile"])
def test_the_example_for_running_some_tests_selects_some(page: str):
    example = re.search(r'ARGS="(test/\S+) -k (\w+)"', (ROOT / page).read_text())
    assert example is not None
    assert re.search(rf"^def test_\w*{example[2]}", (ROOT / example[1]).read_text(), re.MULTILINE)


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_what_a_command_that_is_not_run_names_exists(where, command):
    for pattern, check in CHECKS.items():
        if re.match(pattern, command):
            check(command)
            return
    assert re.match(FOREIGN, command), f"{where}: nothing checks {command!r}"


STORES = {row[0].strip("`"): row[1].strip("`") for row in table(ROOT / "docs/reproduction.md", "Rendered stores")}


@pytest.mark.parametrize("command", STORES.values())
def test_the_command_of_a_rendered_store_has_its_options(command: str):
    check_module(command)


@pytest.mark.parametrize("page", ["results.md", "reproduction.md"])
def test_every_store_of_a_command_has_one_that_renders_it(page: str):
    named = set(re.findall(r"(?<=[ `])data/\w+", (ROOT / "docs" / page).read_text()))
    assert named
    assert named <= set(STORES)


def test_the_pip_route_is_what_the_makefile_does():
    makefile = (ROOT / "tools/without_ros.mk").read_text()
    for what in ("./monet_perception_msgs", ".[ros,demo]"):
        assert what in makefile
        assert any(what in command for _, command in COMMANDS), what


def test_options_named_in_the_text_exist():
    named = {
        option: page.name
        for page in PAGES
        for token in inline(page)
        if token.type == "code_inline"
        for option in re.findall(r"--(?:model|data|trainer)\.[\w.]+", token.content)
    }
    text = help_of("python -m train.fit")
    # Those of options that hold several settings stand in no help.
    nested = {f"--model.network.{field.name}" for field in dataclasses.fields(MonetConfig)}
    nested |= {f"--model.objective.geco.{field.name}" for field in dataclasses.fields(GecoOptions)}
    assert len(named) > 10
    unknown = {option: page for option, page in named.items() if option not in nested}
    assert [f"{option} in {page}" for option, page in unknown.items() if not re.search(rf"{option}\b", text)] == []


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_of_a_page_exist(page: Path):
    for token in inline(page):
        target = token.attrGet("href") or token.attrGet("src")
        if target is None or "://" in str(target):
            continue
        path, _, anchor = str(target).partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


def test_the_site_builds_without_a_warning(tmp_path):
    done = run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")], ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/node/index.html").is_file()
