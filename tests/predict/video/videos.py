"""Videos that the tests make, read back, and sources of frames that the tests decide on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edpct.predict.engine import Engine
from edpct.predict.video.sources import Frame

Pixels = NDArray[np.uint8]


def scenes(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[Pixels]:
    """Frames (H, W, 3), uint8, BGR, of patches of random colours, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), np.uint8)
    return list(coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width])


def write_video(path: Path, frames: Sequence[Pixels], rate: float = 25.0, codec: str = "FFV1") -> Path:
    """Write a video with OpenCV; FFV1 keeps every bit."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (width, height), True)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read_video(path: Path) -> list[Pixels]:
    """Its frames, BGR."""
    device, frames = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = device.read()
        if not good:
            return frames
        frames.append(frame)


def read_classes(path: Path) -> list[Pixels]:
    """The frames of a grey video, (H, W)."""
    frames = read_video(path)
    assert all((frame == frame[..., :1]).all() for frame in frames)
    return [frame[..., 0] for frame in frames]


class Given:
    """A source of frames that are given, with stamps of their own where ``stamps`` says so.

    ``before`` is called with the number of each frame before it is given, and with their number at the end.
    """

    def __init__(
        self, frames: Iterable[Pixels], live: bool = False, rate: float = 25.0,
        before: Callable[[int], None] = lambda index: None,
    ) -> None:  # fmt: skip
        self._frames = list(frames)
        self._before, self._next = before, 0
        self.name, self.live, self.finite, self.rate = "given", live, not live, rate
        self.count = 0 if live else len(self._frames)
        self.closed = False

    def read(self) -> Frame | None:
        self._before(self._next)
        if self._next == len(self._frames):
            return None
        self._next += 1
        return Frame(self._frames[self._next - 1], time.perf_counter())

    def complaint(self, taken: int) -> str:
        return ""

    def close(self) -> None:
        self.closed = True


class Hooked(Engine):
    """An engine that calls ``before`` with the number of each inference, and keeps what it was last shown."""

    def __init__(self, path: Path, before: Callable[[int], None], **settings: Any) -> None:
        super().__init__(path, runtime="onnxruntime", **settings)
        self._before, self._count = before, 0

    def infer(self, images: Pixels) -> Any:
        self._count += 1
        self.shown = images
        self._before(self._count - 1)
        return super().infer(images)


@contextmanager
def camera_server(frames: Sequence[Pixels], endless: bool = False) -> Iterator[str]:
    """A camera as many drones have it: MJPEG over HTTP, real, on this machine. It hangs up after its frames, or begins
    anew, 50 frames a second."""
    pictures = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                self.send_all()
                while endless:
                    self.send_all()
            except OSError:
                pass  # the client has what it wanted

        def send_all(self) -> None:
            for picture in pictures:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                time.sleep(0.02 if endless else 0)

        def log_message(self, *said: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
