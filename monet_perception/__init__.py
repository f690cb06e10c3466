"""Objects of a scene without labels: MONet, MONet-RN50 and MONet-RN50* for robots (Berriel Martins 2022).

Importing this package needs no ROS; only `monet_perception.nodes` does.
"""

__version__ = "0.1.0"
