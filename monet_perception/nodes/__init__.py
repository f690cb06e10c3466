"""Everything that imports rclpy: the node `decompose`, its parts, and the demo's camera and viewer."""

try:
    import rclpy  # noqa: F401
except ImportError as error:
    raise ImportError(
        "monet_perception.nodes needs ROS 2 Jazzy: source /opt/ros/jazzy/setup.bash, or on a machine without ROS "
        "pip install 'monet_perception[ros]'"
    ) from error

try:
    import monet_perception_msgs  # noqa: F401
except ImportError as error:
    raise ImportError(
        "monet_perception.nodes needs the package monet_perception_msgs: build it with "
        "colcon build --base-paths . monet_perception_msgs, or pip install ./monet_perception_msgs"
    ) from error
