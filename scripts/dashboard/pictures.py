"""Grids small enough that a page may hold those of hundreds of runs."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

from PIL import Image

WIDEST, TALLEST = 420, 520  # pixels
GREYS = 16


def data_uri(path: Path, *, private: bool = False) -> str | None:
    """The picture, reduced by a whole factor: a PNG of few greys, or a WebP in colour. None where none can be read.

    `private`: it must not be shared, so it is watermarked at its new size; reduced marks cannot be read.
    """
    try:
        with Image.open(path) as picture:
            factor = max(1, math.ceil(picture.width / WIDEST), math.ceil(picture.height / TALLEST))
            small = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB").reduce(factor)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if private:
        from eval.watermark import watermarked  # slow to import, and seldom needed

        small = watermarked(small)
    out = io.BytesIO()
    if small.mode == "L":
        small.quantize(GREYS).save(out, "PNG", optimize=True)
    else:
        small.save(out, "WEBP", quality=70)
    return f"data:image/{'png' if small.mode == 'L' else 'webp'};base64,{base64.b64encode(out.getvalue()).decode()}"
