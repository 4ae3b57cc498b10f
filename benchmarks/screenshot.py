"""A picture of a report's page, for the README: desktop width in light, phone width in dark, side by side.

    python benchmarks/screenshot.py benchmarks/results/dubai/report.html benchmarks/results/dubai/page.png

Needs Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE, NARROW, HEIGHT, GAP = 1280, 390, 1960, 24
NARROWEST_WINDOW = 600  # headless Chromium widens a smaller one
DARK, LIGHT = 0, 1  # Blink's preferredColorScheme
BACKGROUND = (128, 132, 138)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"screenshot: none of {', '.join(BROWSERS)} is installed.", file=sys.stderr)
        return 2
    desktop = shot(browser, asked.page, WIDE, LIGHT)
    phone = shot(browser, asked.page, NARROW, DARK)
    both = Image.new("RGB", (WIDE + NARROW + 3 * GAP, HEIGHT + 2 * GAP), BACKGROUND)
    both.paste(desktop, (GAP, GAP))
    both.paste(phone, (WIDE + 2 * GAP, GAP))
    both.save(asked.out, optimize=True)
    return 0


def shot(browser: str, page: Path, width: int, scheme: int) -> Image.Image:
    """The top of the page at a width in pixels, in a frame of its own."""
    with tempfile.TemporaryDirectory() as folder:
        frame, picture = Path(folder) / "frame.html", Path(folder) / "shot.png"
        frame.write_text(
            f'<!doctype html><body style="margin:0"><iframe src="{page.resolve().as_uri()}" scrolling="no" '
            f'style="border:0;display:block;width:{width}px;height:{HEIGHT}px;color-scheme:light dark"></iframe>',
            encoding="utf-8",
        )
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--allow-file-access-from-files", f"--blink-settings=preferredColorScheme={scheme}",
            f"--window-size={max(width, NARROWEST_WINDOW)},{HEIGHT}", f"--screenshot={picture}", frame.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Image.open(picture).convert("RGB").crop((0, 0, width, HEIGHT))


if __name__ == "__main__":
    sys.exit(main())
