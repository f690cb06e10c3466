"""Runs `decompose` on a camera that plays the shipped clip, or another recording, and shows it in rviz.

Examples:
    ros2 launch monet_perception demo.launch.py
    ros2 launch monet_perception demo.launch.py rviz:=false device:=cpu
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

LAUNCH = Path(get_package_share_directory("monet_perception")) / "launch"
ARGUMENTS = [
    DeclareLaunchArgument(
        "clip",
        default_value="",
        description="MCAP file or ROS 2 bag with /camera/image (and /camera/depth, /camera/camera_info). With "
        "/camera/image/compressed in place of it, add transport:=compressed, with /camera/depth/compressedDepth "
        "depth_transport:=compressedDepth. Default: the shipped clip.",
    ),
    DeclareLaunchArgument(
        "loop", default_value="true", choices=["true", "false"], description="Begin the clip again at its end."
    ),
    # Before the other file declares it with another default.
    DeclareLaunchArgument(
        "rviz",
        default_value="true",
        choices=["true", "false"],
        description="Show camera, overlay, labels and 3D in rviz.",
    ),
]


def camera(context: LaunchContext) -> list[Node]:
    """The camera, which begins when `decompose` listens, and rviz where it is shown and shows these images."""
    clip = LaunchConfiguration("clip").perform(context)
    loop = LaunchConfiguration("loop").perform(context) == "true"
    raw = context.launch_configurations.get("transport") != "compressed"  # rviz's display takes raw images only
    listeners = 2 if raw and LaunchConfiguration("rviz").perform(context) == "true" else 1
    arguments = ["--wait-for", str(listeners), *(["--clip", clip] if clip else []), *(["--loop"] if loop else [])]
    return [Node(package="monet_perception", executable="camera", arguments=arguments, output="screen")]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls."""
    decompose = IncludeLaunchDescription(
        str(LAUNCH / "decompose.launch.py"),
        launch_arguments={
            "image": "/camera/image",
            "depth": "/camera/depth",
            "camera_info": "/camera/camera_info",
        }.items(),
    )
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=camera), decompose])
