"""Pictures as PNG files that say how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .files import complete

if TYPE_CHECKING:
    import numpy as np


def save_png(picture: np.ndarray, path: Path, about: Mapping[str, str]) -> None:
    """Write a picture with PNG texts.

    Args:
        picture: `[H, W, 3]` uint8.
        path: the file; written complete or not at all, its folder made where there is none.
        about: keyword → text; `prompt`, `seed` and `dpt`, the settings, by custom.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in about.items():
        info.add_text(key, value)
    with complete(path, durable=False) as partial:
        Image.fromarray(picture).save(partial, "PNG", pnginfo=info)


def read_picture(path: Path) -> np.ndarray:
    """A picture `[H, W, 3]` uint8 from a file of any format that Pillow reads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or a damaged one.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error
