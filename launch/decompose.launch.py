"""Runs the node `decompose` on a camera's topics, and rviz beside it on request.

Examples:
    ros2 launch monet_perception decompose.launch.py image:=/camera/color/image_raw rviz:=true
    ros2 launch monet_perception decompose.launch.py --show-args
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

CONFIG = Path(get_package_share_directory("monet_perception")) / "config"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SWITCH = {"choices": ["true", "false"]}

# Left empty, they keep the value of the parameter file; so a file of one's own is not overruled by defaults from here.
PARAMETERS = ("checkpoint", "device", "transport", "depth_transport", "autostart")
OUTPUTS = ("slots", "overlay", "labels", "error", "markers", "cloud")


def beside_image(topic: str) -> PythonExpression:
    """The topic of that name in the image's own namespace, where camera drivers put it."""
    return PythonExpression(["''.join('", LaunchConfiguration("image"), f"'.rpartition('/')[:2]) + '{topic}'"])


ARGUMENTS = [
    DeclareLaunchArgument(
        "image",
        default_value="/camera/image_raw",
        description="Topic of the camera images; with transport:=compressed, the part before /compressed.",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="/camera/depth/image_raw",
        description="Topic of the depth images (16UC1 in mm or 32FC1 in m), registered to the images and with their "
        "stamps. While nothing comes on it, slots have no place in 3D.",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value=beside_image("camera_info"),
        description="Topic of the camera's intrinsics, needed for 3D. Default: beside the images.",
    ),
    DeclareLaunchArgument(
        "checkpoint",
        default_value="",
        description="The network: rooms or household, which come with the package, or the path of a .safetensors file. "
        "Default: rooms.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Where the network runs: auto (a GPU if there is one), cpu, cuda, cuda:N. Default: auto.",
    ),
    DeclareLaunchArgument(
        "transport", default_value="", choices=["", "raw", "compressed"], description="How images come. Default: raw."
    ),
    DeclareLaunchArgument(
        "depth_transport",
        default_value="",
        choices=["", "raw", "compressedDepth"],
        description="How depth comes; with compressedDepth, depth:= is the part before /compressedDepth. Default: raw.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", *SWITCH["choices"]],
        description="Whether the node configures and activates itself; if not, use `ros2 lifecycle`. Default: true.",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(CONFIG / "decompose.yaml"),
        description="YAML file of the node's parameters; the arguments above overrule it where they are given.",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="Namespace of the node and its outputs: /NAMESPACE/scene/slots."
    ),
    DeclareLaunchArgument(
        "overlay", default_value="false", **SWITCH, description="Show /scene/overlay in a window (rqt_image_view)."
    ),
    DeclareLaunchArgument(
        "rviz", default_value="false", **SWITCH, description="Show camera, overlay, labels and 3D in rviz."
    ),
    DeclareLaunchArgument(
        "fixed_frame",
        default_value="camera_optical_frame",
        description="Frame that rviz draws the 3D in: give the frame_id of the images, or any frame that TF connects "
        "with it.",
    ),
    DeclareLaunchArgument(
        "fastdds_profile",
        default_value=EnvironmentVariable(PROFILE, default_value=str(CONFIG / "fastdds.xml")),
        description="Fast DDS profile of the node. The shipped one has a shared-memory segment of 8 MiB, so that the "
        "large messages that the node publishes don't get lost; for large images, the camera's process needs it as "
        "well. 'none': the middleware's own defaults. Default: the shipped one, or what the "
        f"environment's {PROFILE} names.",
    ),
]


def decompose(value: dict[str, str]) -> Node:
    """The node itself."""
    given = {name: value[name] for name in PARAMETERS if value[name]}
    if "autostart" in given:
        given["autostart"] = given["autostart"] == "true"
    return Node(
        package="monet_perception",
        executable="decompose",
        name="decompose",
        namespace=value["namespace"],
        parameters=[value["params_file"], given],
        remappings=[(topic, value[topic]) for topic in ("image", "depth", "camera_info")],
        additional_env={} if value["fastdds_profile"] == "none" else {PROFILE: value["fastdds_profile"]},
        output="screen",
        emulate_tty=True,
    )


def viewers(value: dict[str, str], pushed: str) -> list[Node]:
    """Windows, as far as they are asked for; `pushed` is the namespace around the launch file."""
    nodes = []
    if value["overlay"] == "true":
        # Its argument is no topic that ROS would resolve, but looked up in the list of topics.
        namespace = make_namespace_absolute(prefix_namespace(pushed, value["namespace"]) or "/")
        topic = f"{namespace.rstrip('/')}/scene/overlay"
        nodes.append(Node(package="rqt_image_view", executable="rqt_image_view", arguments=[topic]))
    if value["rviz"] == "true":
        # Relative, like the node's own topics.
        moved = [("/camera/image", value["image"]), *((f"/scene/{name}", f"scene/{name}") for name in OUTPUTS)]
        nodes.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value["namespace"],
                arguments=["-d", str(CONFIG / "decompose.rviz"), "-f", value["fixed_frame"]],
                remappings=moved,
            )
        )
    return nodes


def start(context: LaunchContext) -> list[Node]:
    """All nodes, now that the arguments have values."""
    value = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    return [decompose(value), *viewers(value, context.launch_configurations.get("ros_namespace", ""))]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
