"""Prediction on video files, cameras and streams."""

from edpct.predict.video.flight import Flown
from edpct.predict.video.kinds import is_live, is_video
from edpct.predict.video.predict import fly, predict_video
from edpct.predict.video.settings import VideoSettings

__all__ = ["Flown", "VideoSettings", "fly", "is_live", "is_video", "predict_video"]
