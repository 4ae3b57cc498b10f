"""``run.py``, the script that goes along: short, for the user to read and to change."""

from __future__ import annotations

_TEXT = '''"""Segment an image or a folder of images: python run.py IMAGE-OR-FOLDER [OUT]; needs {install}"""

import sys
from pathlib import Path

try:
    import numpy as np
    from PIL import Image

    from edpct import Segmenter
except ImportError:
    sys.exit("edpct is not installed. Install it with: {install}")

if len(sys.argv) < 2:
    sys.exit(__doc__)
ENGINE = Path(__file__).with_name("{engine}")  # or another engine of this folder
source, out = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "masks")
kinds = (".jpg", ".jpeg", ".png")
images = sorted(p for p in source.iterdir() if p.suffix.lower() in kinds) if source.is_dir() else [source]
out.mkdir(exist_ok=True)
with Segmenter(ENGINE) as seg:
    for path in images:
        frame = np.asarray(Image.open(path).convert("RGB"))
        mask = seg(frame)  # (H, W), uint8: indices into seg.classes
        Image.fromarray(mask).save(out / f"{{path.stem}}.png")
        Image.fromarray(seg.overlay(frame, mask)).save(out / f"{{path.stem}}-overlay.png")
        shares = np.bincount(mask.ravel(), minlength=len(seg.classes)) / mask.size
        print(path.name, ", ".join(f"{{name}} {{share:.0%}}" for name, share in zip(seg.classes, shares)))
'''


def run_script(engine: str, extra: str) -> str:
    """The script.

    Args:
        engine: file name of the engine that it opens, beside it.
        extra: of edpct, that brings a runtime for this engine.
    """
    return _TEXT.format(engine=engine, install=f"pip install 'edpct[{extra}]'")
