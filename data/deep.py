"""Grey of more than 8 bits: 16-bit PNG and TIFF, and DICOM (which needs the package pydicom)."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from PIL import Image


def windowed(values: np.ndarray, mode: str, window: tuple[float, float] | None) -> Image.Image:
    """Grey of 8 bits: `window`[0] and below is black, `window`[1] and above white, and what is between in proportion."""
    if window is None:
        raise ValueError(f"mode {mode}, of more than 8 bits; dataset.window=[low,high] says what is black and what is white")
    low, high = window
    scaled = (np.asarray(values, np.float64) - low) / (high - low)
    if not np.isfinite(scaled).all():
        raise ValueError("values that are no numbers")
    return Image.fromarray(np.round(scaled.clip(0, 1) * 255).astype(np.uint8))


def is_dicom(file: IO[bytes]) -> bool:
    """By its first bytes, as names of X-rays often have no ending."""
    start = file.read(132)
    file.seek(0)
    return start[128:] == b"DICM"


def read_dicom(file: IO[bytes], window: tuple[float, float] | None, most_pixels: int) -> Image.Image:
    """One frame of grey, by the file's rescale slope and intercept; MONOCHROME1, where small values are white, is inverted."""
    try:
        import pydicom
    except ImportError as error:
        raise ValueError("it is DICOM, which needs the package pydicom; pip install pydicom") from error
    found: Any = pydicom.dcmread(file)
    frames, samples = int(found.get("NumberOfFrames", 1) or 1), int(found.get("SamplesPerPixel", 1))
    kind = str(found.get("PhotometricInterpretation", "MONOCHROME2"))
    if frames != 1:
        raise ValueError(f"DICOM of {frames} frames; export the one that is meant")
    if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"DICOM of kind {kind} with {samples} values for each pixel; one of grey is read")
    if int(found.Rows) * int(found.Columns) > most_pixels:
        raise ValueError(f"{found.Columns}×{found.Rows} pixels, more than {most_pixels:,}")
    values = found.pixel_array.astype(np.float64) * float(found.get("RescaleSlope", 1) or 1)
    values += float(found.get("RescaleIntercept", 0) or 0)
    bits = int(found.get("BitsStored", 16))
    image = windowed(values, f"DICOM of {bits} bits", window or ((0, 255) if bits <= 8 else None))
    return Image.eval(image, lambda value: 255 - value) if kind == "MONOCHROME1" else image
