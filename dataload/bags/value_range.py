"""The range of 16-bit values: how many of the bits a camera uses, which is often 10, 12 or 14, and the encoding does not say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from dataload.bags.formats.container import Damage
from dataload.bags.formats.reading import Bag, Track
from dataload.bags.messages import images
from dataload.bags.messages.images import BadFrame
from splits.errors import InputError

FRAMES_LOOKED_AT = 32  # of each topic, from its beginning to its end


class ValueRange(NamedTuple):
    """What is known of a recording's 16-bit values: the largest of ``frames`` frames, and how many bits it takes, 8 to 16."""

    bits: int
    largest: int
    frames: int

    def describe(self, said: int | None) -> str:
        """How the values are cut down to 8 bits, in words; ``said`` are the bits of the encoding's name."""
        bits = said or self.bits
        if bits == 16:
            return "16 bits are cut down to 8 (divided by 256)"
        known = "by its encoding" if said else f"the largest value of {self.frames} frames is {self.largest}"
        return f"{bits} of 16 bits are in use ({known}); cut down to 8 (divided by {2 ** (bits - 8)})"


def look_at_values(bag: Bag, tracks: Sequence[Track]) -> ValueRange:
    """The range of the 16-bit values of topics together, by frames spread over each; 16 bits where there are none."""
    largest = frames = 0
    for track in tracks:
        count = min(FRAMES_LOOKED_AT, len(track.places))
        for number in range(count):
            # What cannot be read is named when it is converted.
            with suppress(Damage, BadFrame, InputError):
                message = bag.message(track, (2 * number + 1) * len(track.places) // (2 * count))
                if images.is_16_bit(message) and images.said_bits(message) is None:
                    largest = max(largest, images.largest_value(message, track.topic.name))
                    frames += 1
    return ValueRange(max(8, largest.bit_length()) if frames else 16, largest, frames)
