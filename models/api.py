"""What the rest of the program asks of a public model.

`ImageAPI` is all that Private Evolution needs of one; a user's own object with these methods will do:

    class MyAPI:                                              # around a remote service, for one
        num_labels = 1                                        # public labels it can be asked for
        def random(self, labels, *, stream, advance=None):    # -> uint8 [N, H, W, C], one image a label
            ...
        def variation(self, images, labels, degree, *, stream, respacing=None, advance=None):   # -> uint8 [N, H, W, C]
            ...

`stream` names the randomness of a call: an API that gives the same images for the same stream makes a killed run resume
to the same release. `model=callable model.factory=my_module:MyAPI` runs on such an object, in requests that are paced, repeated
where they fail, and kept on disk.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tracking.progress import Advance


class ImageAPI(Protocol):
    """Generates images; the labels are the public model's own, int64 [N] in 0 … num_labels - 1."""

    num_labels: int

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray: ...

    def variation(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        degree: float,
        *,
        stream: str,
        respacing: str | None = None,
        advance: Advance | None = None,
    ) -> np.ndarray: ...
