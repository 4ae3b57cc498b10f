"""What a text names: a video file, a camera, an address of a stream, a GStreamer pipeline. Nothing is opened here."""

from __future__ import annotations

import re
from pathlib import PurePath

SUFFIXES = frozenset({
    ".264", ".265", ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
})  # fmt: skip
DOWNLOADS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})  # on a server, .mjpg and .ts are streams
CAMERA = re.compile(r"camera:(\d+)")
DEVICE = re.compile(r"/dev/video\d+")
ADDRESS = re.compile(r"(rtsp|rtsps|rtmp|rtp|udp|tcp|srt|http|https)://.+", re.IGNORECASE)
WEB = re.compile(r"https?://", re.IGNORECASE)


def is_video(source: str) -> bool:
    """Whether predicting on it is this package's: a video file by its suffix, a camera, an address or a pipeline."""
    return is_live(source) or is_address(source) or _suffix(source) in SUFFIXES


def is_live(source: str) -> bool:
    """Whether frames come when they come, and those that are not taken are gone: all but files, here or on a server."""
    if is_pipeline(source) or source.startswith("camera:") or DEVICE.fullmatch(source):
        return True
    if not is_address(source):
        return False
    return WEB.match(source) is None or _suffix(re.split("[?#]", source)[0]) not in DOWNLOADS


def is_address(source: str) -> bool:
    """``rtsp://…``, ``http://…`` and the like."""
    return ADDRESS.fullmatch(source) is not None


def is_pipeline(source: str) -> bool:
    """A GStreamer pipeline: elements with " ! " between them."""
    return " ! " in source


def _suffix(source: str) -> str:
    return PurePath(source).suffix.lower()
