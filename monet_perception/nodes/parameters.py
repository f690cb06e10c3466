"""The node's parameters: one table of names, defaults, ranges and descriptions, checked before anything changes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

Value = bool | int | float | str

_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_QOS_OVERRIDES = "qos_overrides."
_OF_EVERY_NODE = ("use_sim_time", _QOS_OVERRIDES, "start_type_description_service")


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        name: as in `ros2 param set`.
        default: its type is the parameter's type.
        description: one sentence; with unit.
        running: whether it may change while the node is configured; others are read by `configure`.
        least, most: range of a number, both included.
        choices: the values that a string may have; empty: any.
        check: says what is wrong with a value, None if nothing.
    """

    name: str
    default: Value
    description: str
    running: bool = False
    least: float | None = None
    most: float | None = None
    choices: Sequence[str] = ()
    check: Callable[[Any], str | None] = field(default=lambda value: None)

    def plain(self, value: Any) -> Any:
        """A value as it is meant: `min_area:=0` on a command line is a whole number, and `rectified:=true` no text."""
        if isinstance(self.default, float) and type(value) is int:
            return float(value)
        if isinstance(self.default, str) and type(value) is bool:
            return str(value).lower()
        return value

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        when = "May change while running." if self.running else "Read by configure; clean up first to change it."
        # ROS's tools read `true` as a truth value, also where it is one of several words.
        words = "true" in self.choices
        message = ParameterDescriptor(name=self.name, description=f"{self.description} {when}", dynamic_typing=words)
        if self.choices:
            message.additional_constraints = f"one of: {', '.join(self.choices)}"
        if self.least is None or self.most is None:
            return message
        if isinstance(self.default, int):
            message.integer_range = [IntegerRange(from_value=int(self.least), to_value=int(self.most), step=0)]
        else:
            message.floating_point_range = [FloatingPointRange(from_value=self.least, to_value=self.most, step=0.0)]
        return message

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, None if nothing."""
        if self.choices:
            value = self.plain(value)
        if type(value) is not type(self.default):
            return f"{self.name} must be {_KINDS[type(self.default)]}, is {value!r}"
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r}; it must be one of {', '.join(self.choices)}"
        if self.least is not None and self.most is not None and not self.least <= float(value) <= self.most:
            return f"{self.name} is {value}; it must be from {self.least} to {self.most}"
        return self.check(value)


class Parameters:
    """The declared parameters of a node; `parameters["device"]` is the value now.

    A value given at start that doesn't fit must not end the process, as rclpy has it: the default takes its place, and
    `faults` keeps what was wrong until a fitting value is set.

    Args:
        node: whose parameters they are.
        specs: the table.
        configured: whether the node is configured, that is, only `running` parameters may change.
        changed: called with the names that were changed, after they were.
    """

    def __init__(
        self, node: Node, specs: Iterable[Spec], configured: Callable[[], bool], changed: Callable[[set[str]], None]
    ) -> None:
        self._node = node
        self._specs = {spec.name: spec for spec in specs}
        self._configured = configured
        self._changed = changed
        self.faults: dict[str, str] = {}
        for spec in self._specs.values():
            self._declare(spec)
        self._warn_of_unknown()
        node.add_on_set_parameters_callback(self._validate)
        node.add_post_set_parameters_callback(self._update)

    def __getitem__(self, name: str) -> Any:
        return self._specs[name].plain(self._node.get_parameter(name).value)

    def warn_of_unknown_qos(self) -> None:
        """Warns of QoS overrides that fit no topic; to be called when the node has declared those of its topics."""
        self._warn(name for name in self._node._parameter_overrides if name.startswith(_QOS_OVERRIDES))

    def _declare(self, spec: Spec) -> None:
        given = self._node._parameter_overrides.get(spec.name)
        value = spec.plain(given.value) if given is not None else spec.default
        if given is not None and value is not given.value:
            self._node._parameter_overrides[spec.name] = Parameter(spec.name, value=value)
        if fault := spec.fault(value):
            self.faults[spec.name] = fault
        try:
            self._node.declare_parameter(spec.name, spec.default, spec.descriptor(), ignore_override=bool(fault))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise AssertionError(f"the table's own default doesn't fit: {error}") from error

    def _warn_of_unknown(self) -> None:
        self._warn(name for name in self._node._parameter_overrides if not name.startswith(_OF_EVERY_NODE))

    def _warn(self, given: Iterable[str]) -> None:
        known = list(self._node._parameters)
        for name in given:
            if name in known:
                continue
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self._node.get_logger().warning(f"unknown parameter {name!r} is ignored{hint}")

    def _validate(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            if spec is None:
                continue
            if self._configured() and not spec.running and spec.plain(parameter.value) != self[parameter.name]:
                reason = f"{spec.name} is read by configure: clean the node up, set it, configure again"
                return SetParametersResult(successful=False, reason=reason)
            if fault := spec.fault(parameter.value):
                return SetParametersResult(successful=False, reason=fault)
        return SetParametersResult(successful=True)

    def _update(self, parameters: list[Parameter]) -> None:
        names = {parameter.name for parameter in parameters if parameter.name in self._specs}
        for name in names:
            self.faults.pop(name, None)
        if names:
            self._changed(names)
