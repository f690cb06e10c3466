"""The lifecycle node `decompose`: camera images in, the slots of the scene out."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from monet_perception_msgs.srv import DecodeSlots
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from monet_perception.assessment import Assessment
from monet_perception.calibration import camera_intrinsics, named_rectified
from monet_perception.decomposer import Decomposer
from monet_perception.nodes import conversions, diagnostics
from monet_perception.nodes.depth import DepthMatcher
from monet_perception.nodes.inputs import Inputs
from monet_perception.nodes.network import Network, NetworkError
from monet_perception.nodes.outputs import IN_3D, TOPICS, Outputs, Style
from monet_perception.nodes.parameters import Parameters
from monet_perception.nodes.pipeline import DecomposedFrame, Pipeline
from monet_perception.nodes.process import LOG_EVERY, NOT_CONFIGURED, ros, spin, steady_timer
from monet_perception.nodes.settings import SPECS
from monet_perception.nodes.slot_messages import fill_decoded, read_latents
from monet_perception.nodes.statistics import Statistics
from monet_perception.nodes.worker import NewestFirstWorker
from monet_perception.raw_images import MessageError
from monet_perception.scene_tracker import SceneTracker
from monet_perception.shipped import DEFAULT_CHECKPOINT, checkpoint_path
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds
from monet_perception.tracking import TrackerSettings

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@dataclass(frozen=True)
class Arrival:
    """An image as it came; `received` is in seconds of time.monotonic()."""

    message: Image | CompressedImage
    received: float


def _told(transition: Callable[[DecomposeNode, LifecycleState], TransitionCallbackReturn]) -> Callable[..., Any]:
    """Decorator: reports unexpected errors of a transition; rclpy swallows them and leaves the node unconfigured."""

    @functools.wraps(transition)
    def told(node: DecomposeNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node._fail(f"unconfigured, because {transition.__name__} failed", error)
            raise

    return told


class DecomposeNode(LifecycleNode):
    """Decomposes the newest camera image while somebody listens.

    Images are checked where they arrive, in the executor, and worked on by a thread of their own, so that services and
    parameters answer while the network runs.

    Args:
        make_decomposer: called as `Decomposer`.
        options: of `rclpy.node.Node`.
    """

    def __init__(self, make_decomposer: Callable[..., Decomposer] = Decomposer, **options: Any) -> None:
        super().__init__("decompose", **options)
        self._make_decomposer = make_decomposer
        self._statistics = Statistics()
        self._report = diagnostics.Report(self.get_fully_qualified_name())
        self._assessment: Assessment | None = None
        self._assessed = self._listening_since = -float("inf")
        self._configuration_fault = self._subscription_fault = ""
        self._outputs: Outputs | None = None
        self._inputs: Inputs | None = None
        self._network: Network | None = None
        self._pipeline: Pipeline | None = None
        self._worker: NewestFirstWorker[Arrival] | None = None
        self._depth = DepthMatcher()
        self._settings = Parameters(self, SPECS, lambda: self.state not in ("unconfigured", "unknown"), self._apply)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reporting = steady_timer(self, self._settings["diagnostics_period"], self._publish_diagnostics)
        self._decoding = self.create_service(DecodeSlots, "~/decode_slots", self._decode_slots)
        self._refuse_impossible_transitions()
        self._apply(set())
        if self._settings["autostart"]:
            self._starting = steady_timer(self, 0.0, self._start)

    @property
    def state(self) -> str:
        """State of the lifecycle: unconfigured, inactive, active, finalized, or between two of them."""
        return str(self._state_machine.current_state[1])

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads what the parameters name, or says what is wrong with them and stays unconfigured."""
        try:
            if self._settings.faults:
                raise ValueError("; ".join(self._settings.faults.values()))
            self._network = Network(self._load)
            # Loaded to see whether it can be; an inactive node holds no memory, on the device or else.
            decomposer = self._network.acquire()
            info, device = decomposer.info, decomposer.device
            self._network.release()
            self._inputs = Inputs(
                self,
                self._settings["transport"],
                self._settings["depth_transport"],
                self._on_image,
                self._on_depth,
                self._on_info,
                lost=self._statistics.count,
            )
            self._outputs = Outputs(self, self._listeners_changed)
            self._settings.warn_of_unknown_qos()
        except Exception as error:  # whatever it is, the node stays and can be configured again
            self._fail(NOT_CONFIGURED, error)
            self._tear_down()
            return FAILURE
        self._configuration_fault = ""
        self.get_logger().info(
            f"configured: {info.config.slots} slots of {info.config.image_size}x{info.config.image_size}, trained on "
            f"{info.dataset} for {info.steps} steps, model {info.model_id}, on {device}"
        )
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes the network into use and begins to listen to the camera as soon as somebody listens to the node."""
        assert self._network is not None
        try:
            self._network.acquire()
            tracker = SceneTracker(self._tracker_settings())
            self._pipeline = Pipeline(self._network, tracker, self._depth, self._depth_broken, self._rectified)
            self._worker = NewestFirstWorker(self._work, self._frame_failed, name="decompose")
            self._worker.start()
            super().on_activate(state)
            self._follow_listeners(active=True)
        except Exception as error:  # the file or the device may have gone since `configure`
            self._fail("can't be activated", error)
            self._stop_work()
            super().on_deactivate(state)
            return FAILURE
        self._configuration_fault = ""
        self.get_logger().info("active; no work is done until somebody subscribes to an output")
        return SUCCESS

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops all work and gives the device's memory back."""
        self._stop_work()
        return super().on_deactivate(state)

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forgets the network and takes the topics down."""
        self._tear_down()
        return SUCCESS

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Cleans up, from any state."""
        self._tear_down()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Cleans up after a transition that failed unexpectedly; the node can be configured again."""
        self._tear_down()
        return SUCCESS

    def destroy_node(self) -> None:
        """Ends the work before the node goes."""
        self._tear_down()
        super().destroy_node()

    def _start(self) -> None:
        self._starting.cancel()
        if self.state == "unconfigured" and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _load(self) -> Decomposer:
        settings = self._settings
        decomposer = self._make_decomposer(
            # Where a launch file's nodes start nobody knows, so the messages show the whole path.
            checkpoint_path(settings["checkpoint"] or DEFAULT_CHECKPOINT).absolute(),
            device=settings["device"],
            precision=settings["precision"],
            crop=settings["crop"],
            backend=settings["backend"],
            threads=settings["threads"] or None,
            quantised=settings["quantised"],
        )
        decomposer.warm_up()
        return decomposer

    def _fail(self, what: str, error: Exception) -> None:
        """Tells of a transition that failed; what is unexpected shows where it came from."""
        self._configuration_fault = f"{what}: {error}"
        expected = isinstance(error, (ValueError, OSError, RuntimeError))
        text = "" if expected else "\n" + "".join(traceback.format_exception(error))
        self.get_logger().error(self._configuration_fault + text)

    def _stop_work(self) -> None:
        if self._inputs is not None:
            self._inputs.unsubscribe()
        if self._worker is not None:
            self._statistics.count("dropped", self._worker.stop())
            self._worker = None
        if self._outputs is not None:
            self._outputs.delete_markers()
        if self._network is not None:
            self._network.release()
        self._depth.clear_depth()
        self._assessment = None

    def _tear_down(self) -> None:
        self._stop_work()
        if self._inputs is not None:
            self._inputs.destroy()
        self._depth.clear()
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = self._inputs = self._network = self._pipeline = None

    def _refuse_impossible_transitions(self) -> None:
        """Answers a transition that the state doesn't allow with success = False; rclpy raises and never answers."""
        service = self._service_change_state
        change_state = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except Exception as error:
                self.get_logger().error(f"transition {request.transition.id} from {self.state} refused: {error}")
                response.success = False
                return response

        service.callback = guarded

    # Frames, in the executor

    def _listeners_changed(self) -> None:
        """Follows the listeners. What that raises is told, because out of an event it would end the process."""
        try:
            self._follow_listeners()
            self._subscription_fault = ""
        except Exception as error:
            self._subscription_fault = f"can't subscribe: {error}"
            text = "".join(traceback.format_exception(error))
            self.get_logger().error(f"can't subscribe:\n{text}", throttle_duration_sec=LOG_EVERY)

    def _follow_listeners(self, active: bool | None = None) -> None:
        """Subscribes to the camera when somebody listens to an output, and unsubscribes when nobody does."""
        inputs, outputs = self._inputs, self._outputs
        if inputs is None or outputs is None:
            return
        wanted = (self.state == "active" if active is None else active) and bool(outputs.listened())
        if wanted == inputs.subscribed:
            return
        if wanted:
            self._listening_since = time.monotonic()
            inputs.subscribe()
            self.get_logger().info(f"taking images from {inputs.topic}")
        else:
            inputs.unsubscribe()
            self._depth.clear_depth()
            self._assessment = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.count("received")
        if self._worker is None:
            self._statistics.count("dropped")
            return
        try:
            conversions.check_rgb(message)
        except MessageError as error:
            self._frame_broken(error)
            return
        if not stamp_nanoseconds(message.header):
            self._statistics.count("unstamped")
        if self._worker.offer(Arrival(message, time.monotonic())):
            self._statistics.count("dropped")

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self._statistics.count("received_depth")
        try:
            conversions.check_metres(message)
        except MessageError as error:
            self._depth.refuse_depth(str(error))
            self._depth_broken(error)
            return
        self._depth.add_depth(message)

    def _on_info(self, message: CameraInfo) -> None:
        try:
            camera_intrinsics(message, rectified=self._rectified)
        except MessageError as error:
            self._depth.refuse_info(str(error))
            if self.count_publishers(self._depth_topic):  # a calibration serves depth alone
                self._depth_broken(error)
            return
        self._depth.add_info(message)

    # Frames, in the worker

    def _work(self, arrival: Arrival) -> None:
        outputs, pipeline = self._outputs, self._pipeline
        assert outputs is not None
        assert pipeline is not None
        wanted, style = outputs.listened(), self._style()
        locate = not IN_3D.isdisjoint(wanted)
        try:
            frame = pipeline.run(
                arrival.message, received=arrival.received, reconstruct=style.reconstruct(wanted), locate=locate
            )
        except MessageError as error:
            self._frame_broken(error)
            return
        outputs.publish_slots(frame, wanted, style)
        latency = time.monotonic() - arrival.received
        outputs.publish_rest(frame, wanted, style)
        self._statistics.answered(latency)
        if locate:
            found = any(geometry is not None for geometry in frame.geometries)
            self._statistics.located(
                found=found, fault=frame.depth_fault or ("" if found else "no slot has measured depth")
            )
        if time.monotonic() - self._assessed > self._settings["diagnostics_period"]:
            self._assess(pipeline, frame)

    def _assess(self, pipeline: Pipeline, frame: DecomposedFrame) -> None:
        """Assesses one frame for each report, after it was answered."""
        with contextlib.suppress(NetworkError):  # the frame is answered; the next one will tell of the error
            self._assessment, self._assessed = pipeline.assess(frame), time.monotonic()

    def _recent_assessment(self) -> Assessment | None:
        """That of the last report's time, and none of a scene that a silent camera saw long ago."""
        settings = self._settings
        oldest = time.monotonic() - max(settings["camera_timeout"], 2 * settings["diagnostics_period"])
        return self._assessment if self._assessed > oldest else None

    @property
    def _rectified(self) -> bool:
        """Whether the images are rectified: by the parameter, or by their topic's name."""
        given = self._settings["rectified"]
        return named_rectified(self.resolve_topic_name("image")) if given == "auto" else bool(given == "true")

    @property
    def _depth_topic(self) -> str:
        """The full name of the depth images' topic."""
        return self._inputs.depth_topic if self._inputs is not None else self.resolve_topic_name("depth")

    def _style(self) -> Style:
        settings = self._settings
        return Style(
            mask_encoding=settings["mask_encoding"],
            publish_reconstructions=settings["publish_reconstructions"],
            overlay_size=settings["overlay_size"],
        )

    def _frame_broken(self, error: MessageError) -> None:
        self._statistics.count("broken", fault=str(error))
        self.get_logger().warning(f"broken image dropped: {error}", throttle_duration_sec=LOG_EVERY)

    def _depth_broken(self, error: MessageError) -> None:
        self._statistics.count("broken_depth")
        self.get_logger().warning(f"no 3D from a broken message: {error}", throttle_duration_sec=LOG_EVERY)

    def _frame_failed(self, error: Exception) -> None:
        self._statistics.count("failed", fault=str(error))
        if isinstance(error, NetworkError):
            self.get_logger().error(f"frame lost: {error}", throttle_duration_sec=LOG_EVERY)
        else:
            text = "".join(traceback.format_exception(error))
            self.get_logger().error(f"frame lost:\n{text}", throttle_duration_sec=LOG_EVERY)

    # Services, parameters, diagnostics

    def _decode_slots(self, request: DecodeSlots.Request, response: DecodeSlots.Response) -> DecodeSlots.Response:
        try:
            if self._network is None or self.state != "active":
                raise NetworkError(f"the node is {self.state}; activate it first")
            loaded = self._network.info()
            if request.model_id not in ("", loaded.model_id):
                raise MessageError(
                    f"the latents are of model {request.model_id[:40]!r}, {loaded.model_id} is loaded; "
                    "latents of one model mean nothing to another"
                )
            fill_decoded(response, *self._network.decode(read_latents(request, loaded.config.latent_size)))
        except (MessageError, NetworkError) as error:
            response.success, response.message = False, str(error)
        return response

    def _apply(self, changed: set[str]) -> None:
        if "diagnostics_period" in changed:
            self._reporting.timer_period_ns = int(self._settings["diagnostics_period"] * NANOSECONDS)
            self._reporting.reset()  # or the first would still take the former period
        self._depth.tolerance = self._settings["depth_tolerance"]
        self._depth.patience = self._settings["depth_patience"]
        if self._pipeline is not None:
            self._pipeline.tracker.settings = self._tracker_settings()

    def _tracker_settings(self) -> TrackerSettings:
        return TrackerSettings(min_area=self._settings["min_area"], max_absence=self._settings["max_absence"])

    def _publish_diagnostics(self) -> None:
        self._listeners_changed()  # in case an event was lost
        settings = self._settings
        thresholds = diagnostics.Thresholds(
            camera_timeout=settings["camera_timeout"],
            max_latency=settings["max_latency"],
            max_reconstruction_error=settings["max_reconstruction_error"],
        )
        message = DiagnosticArray(status=self._report.build(self._statistics, self._situation(), thresholds))
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        for status in self._report.worsened(message.status):
            self.get_logger().warning(f"{status.name}: {status.message}")

    def _situation(self) -> diagnostics.Situation:
        inputs, network = self._inputs, self._network
        publishers = inputs.publishers() if inputs is not None else ""
        return diagnostics.Situation(
            state=self.state,
            listened=bool(self._subscription_fault) or (inputs is not None and inputs.subscribed),
            listening_since=self._listening_since,
            publishers=publishers,
            of_other_types=inputs.of_other_types() if inputs is not None else "",
            elsewhere=inputs.elsewhere() if inputs is not None and not publishers else (),
            topic=inputs.topic if inputs is not None else self.resolve_topic_name("image"),
            input_fault=self._subscription_fault or (inputs.fault if inputs is not None else ""),
            depth_topic=self._depth_topic,
            depth_publishers=self.count_publishers(self._depth_topic),
            depth_elsewhere=inputs.depth_elsewhere() if inputs is not None else None,
            track_resets=self._pipeline.tracker.resets if self._pipeline is not None else 0,
            network_fault=self._configuration_fault or (network.fault if network is not None else ""),
            recoveries=network.recoveries if network is not None else 0,
            network=network.description() if network is not None else {},
            assessment=self._recent_assessment(),
        )


def _help() -> str:
    rows = []
    for spec in SPECS:
        values = f" [{', '.join(spec.choices)}]" if spec.choices else ""
        if spec.least is not None and spec.most is not None:
            values = f" [{spec.least:g} to {spec.most:g}]"
        rows.append(f"  {spec.name}:={spec.default!r}{values}\n      {spec.description}")
    outputs = ", ".join(f"scene/{name}" for name in TOPICS)
    return (
        "examples (with a ROS installation, `ros2 run monet_perception decompose` in place of the command):\n"
        "  monet-decompose --ros-args -r image:=/camera/image_raw\n"
        "  monet-decompose --ros-args -r image:=/camera/image_raw -p transport:=compressed -p device:=cuda\n"
        "  monet-decompose --ros-args -r image:=/cam/color/image_raw \\\n"
        "      -r depth:=/cam/aligned_depth_to_color/image_raw -r camera_info:=/cam/color/camera_info\n\n"
        "takes images from `image`; for 3D also `depth` and `camera_info`. All three are names to remap (-r).\n"
        f"publishes {outputs} and /diagnostics.\n\n"
        "parameters (-p NAME:=VALUE):\n" + "\n".join(rows)
    )


def main(args: list[str] | None = None) -> None:
    """Runs the node until it is told to stop."""
    arguments = sys.argv if args is None else args
    parser = argparse.ArgumentParser(
        prog="monet-decompose",
        description="Decomposes camera images into slots and publishes them on scene/slots.",
        epilog=_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(remove_ros_args(arguments)[1:])
    with ros(arguments) as stop:
        node = DecomposeNode()
        try:
            spin(node, stop.is_set)
        finally:
            node.destroy_node()


if __name__ == "__main__":
    main()
