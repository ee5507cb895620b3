"""The one way in which a picture of private images reaches the disk: marked as that all over."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from data.grid import label_font

MARK = "contains private data"
BANNER = f"{MARK}: do not share"
RED = (215, 0, 0)


def save_private(picture: Image.Image, path: Path) -> None:
    """As png, watermarked."""
    watermarked(picture).save(path)


def watermarked(picture: Image.Image) -> Image.Image:
    """A line above, and the mark across the whole picture, half transparent: a piece as wide as a few words carries it too."""
    size = max(13, min(picture.size) // 24)
    font, line = label_font(size), 2 * size
    width = max(picture.width, int(font.getlength(BANNER)) + line)
    out = Image.new("RGB", (width, picture.height + line), "white")
    out.paste(picture.convert("RGB"), (0, line))
    out = Image.alpha_composite(out.convert("RGBA"), _marks(out.size, size)).convert("RGB")
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, width, line - 1), RED)
    draw.text((size, line / 2), BANNER, "white", font, anchor="lm")
    return out


def _marks(size: tuple[int, int], letters: int) -> Image.Image:
    """The mark again and again along diagonals, its letters edged in white: legible on black and on white."""
    font = label_font(letters)
    length, side = int(font.getlength(MARK)), size[0] + size[1]  # a square that covers the picture however it is turned
    layer = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(layer)
    for row, y in enumerate(range(0, side, 5 * letters)):
        for x in range(-(row % 2) * length * 2 // 3, side, length * 4 // 3):
            draw.text((x, y), MARK, (*RED, 150), font, stroke_width=max(1, letters // 12), stroke_fill=(255, 255, 255, 150))
    turned = layer.rotate(30, Image.Resampling.BICUBIC)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    return turned.crop((left, top, left + size[0], top + size[1]))
