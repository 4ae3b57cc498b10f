"""OpenCV, loaded when a video is asked for, and kept from writing to the terminal."""

from __future__ import annotations

import os
import re
from typing import Any

from edpct.errors import MissingPackageError, RunError

# Read by OpenCV and by its FFmpeg when they start; what went wrong is said by edpct, in one sentence.
QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}


def opencv() -> Any:
    """The module cv2.

    Raises:
        MissingPackageError: it is not installed.
        RunError: it is installed and cannot be loaded.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingPackageError("opencv-python-headless", "reading a video or a camera", "video") from error
    except ImportError as error:
        reason = str(error).strip().rstrip(".")
        hint = "Install opencv-python-headless in its place; it needs no libraries of a desktop."
        raise RunError(f"OpenCV cannot be loaded: {reason}.", hint) from error
    return cv2


def built_with(part: str) -> bool:
    """Whether this OpenCV was built with a part, as its build information names it: "GStreamer", "GTK"."""
    return re.search(rf"^\s*{part}:\s+YES", opencv().getBuildInformation(), re.MULTILINE) is not None
