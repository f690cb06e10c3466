"""Builds the ROS 2 package (colcon) and the pip package from one description."""

import sys
import tomllib
from glob import glob
from pathlib import Path

from setuptools import Distribution, find_packages, setup

PACKAGE = "monet_perception"

# colcon (`setup.py install` or `develop`) puts executables where only `ros2 run` looks, so their names are short; pip
# puts them on the PATH, where `demo` or `camera` would collide.
FOR_COLCON = bool({"install", "develop"} & set(sys.argv))
EXECUTABLES = ("decompose", "demo", "camera", "viewer")

# `colcon build --symlink-install` runs a link to this file, in another folder.
ROOT = Path(__file__).resolve().parent
MSGS = tomllib.loads((ROOT / "monet_perception_msgs" / "pyproject.toml").read_text(encoding="utf-8"))

# What runs without ROS on any machine: the networks, the Decomposer, tracking, geometry.
BASE = [
    "numpy>=1.26",
    "onnxruntime>=1.20",
    "opencv-python>=4.10",
    "pillow>=10",
    "safetensors>=0.4",
    "scipy>=1.11",
    "torch>=2.6",
    "torchvision>=0.21",
]
DOCS = ["markdown-it-py>=3", "mkdocs>=1.6,<2", "mkdocs-material>=9.6"]
# `ros` is for machines without a ROS installation; on others these packages come with it. The messages are not on PyPI
# and so not in it: `pip install ./monet_perception_msgs` builds them.
EXTRAS = {
    "ros": [
        "ros-jazzy-diagnostic-msgs",
        "ros-jazzy-rclpy",
        "ros-jazzy-rmw-fastrtps-cpp",
        "ros-jazzy-sensor-msgs",
        "ros-jazzy-std-msgs",
        "ros-jazzy-visualization-msgs",
    ],
    "demo": ["rich>=13", "rosbags>=0.11"],  # to read recordings, and to show what comes of them
    "train": [
        "jsonargparse[signatures]>=4.50",
        "lightning>=2.6",
        "matplotlib>=3.9",
        "onnx>=1.18",
        "onnxscript>=0.5",
        "pillow>=10",
        "protobuf>=5",
        "pyyaml>=6",
        "rich>=13",
        "scikit-learn>=1.6",
        "tensorboardX>=2.6",
        "torchmetrics>=1.7",
        "tqdm>=4.66",
    ],
    "render": ["mujoco>=3.3", "pillow>=10", "rosbags>=0.11", "tqdm>=4.66", "trimesh>=4.6"],
    "tensorflow": ["tensorflow-cpu>=2.19"],
    "explore": ["gradio>=6"],
    "openvino": ["openvino>=2025.0"],  # nearly twice as fast as ONNX Runtime on CPUs that compute in bf16
    # `colcon build` on a machine without ROS.
    "colcon": [
        "colcon-common-extensions",
        "setuptools<80",  # the last with `setup.py develop`, which colcon calls
        *MSGS["build-system"]["requires"],
    ],
    "docs": DOCS,
    "test": [
        *DOCS,  # the tests build the docs and run their code
        "disent>=0.9.3",  # its scores are what our disentanglement scores are held to
        "hypothesis>=6.130",
        "playwright>=1.50",
        "pytest>=8",
        "pytest-cov>=6",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
    ],
    "lint": ["mypy>=1.15", "pre-commit>=4", "ruff>=0.11"],
}


class AmentDistribution(Distribution):
    """Has data_files count as data, so that an editable install puts the package into the ament index as well."""

    def has_data(self) -> bool:
        return self.has_data_files()


setup(
    name=PACKAGE,
    version="0.1.0",
    description="The objects in a camera image, without labels of the scenes that it sees: MONet networks for ROS 2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    maintainer="The monet_perception maintainers",
    maintainer_email="maintainers@monet-perception.example.org",
    license="Apache-2.0",
    python_requires=">=3.12,<3.13",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "data/*", "data/graphs/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", [path for path in glob("config/*") if Path(path).is_file()]),
    ],
    distclass=AmentDistribution,
    zip_safe=False,
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            f"{'' if FOR_COLCON else 'monet-'}{name} = {PACKAGE}.nodes.{name}:main" for name in EXECUTABLES
        ],
    },
)
