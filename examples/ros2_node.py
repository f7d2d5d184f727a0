"""A ROS 2 node: camera images in, depth out, by an ONNX file of md-export. ``ros2_node.md`` says how to start it."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataload.bags.messages.images import decode
from export import DepthSession


def read_rgb(message: Any) -> NDArray[np.uint8]:
    """The pixels (H,W,3) of a sensor_msgs Image or CompressedImage; grey becomes three equal channels."""
    pixels = decode(message, "image")
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], 3, axis=2)


def fill_depth(message: Any, header: Any, depth: NDArray[np.float32]) -> Any:
    """An empty sensor_msgs Image, filled with depth (h,w) as 32FC1, under the time and frame of the camera image."""
    message.header, message.encoding, message.is_bigendian = header, "32FC1", 0
    message.height, message.width = depth.shape
    message.step = 4 * message.width
    message.data = array("B", depth.astype("<f4").tobytes())
    return message


def main() -> None:
    """Predict every image of the topic ``image``; the newest where images come faster than the model runs."""
    import rclpy
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage, Image

    rclpy.init()
    node = rclpy.create_node("depth")
    model = node.declare_parameter("model", "depth.onnx").value
    provider = node.declare_parameter("provider", "auto").value
    kind = CompressedImage if node.declare_parameter("compressed", False).value else Image
    session = DepthSession(model, provider=provider)
    session.warm_up()
    newest = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(Image, "depth", newest)

    def predict(message: Any) -> None:
        publisher.publish(fill_depth(Image(), message.header, session.predict(read_rgb(message)[np.newaxis])[0]))

    node.create_subscription(kind, "image", predict, newest)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
