"""Packing problems whose best answer is known: a strip of memory and time, cut into boxes."""

from __future__ import annotations

import random

Lifetime = tuple[int, int, int]  # start, end, size


def cut_rectangle(
    count: int, seed: int, *, length: int = 1000, height: int = 4096
) -> list[Lifetime]:
    """Cut a rectangle in two, again and again, across time or across memory."""
    draw = random.Random(seed)
    boxes = [(0, length, 0, height)]
    while len(boxes) < count:
        weights = [(b - a) * (h - g) * draw.random() for a, b, g, h in boxes]
        start, end, low, high = boxes.pop(weights.index(max(weights)))
        if (draw.random() < 0.5 and end - start > 1) or high - low < 2:
            middle = draw.randint(start + 1, end - 1)
            boxes += [(start, middle, low, high), (middle, end, low, high)]
        else:
            middle = draw.randint(low + 1, high - 1)
            boxes += [(start, end, low, middle), (start, end, middle, high)]
    draw.shuffle(boxes)
    return [(start, end, high - low) for start, end, low, high in boxes]


def allocator_history(count: int, seed: int, *, height: int = 4096) -> list[Lifetime]:
    """Play a heap that is always full: boxes are freed, and others fill the holes exactly."""
    draw = random.Random(seed)
    sizes = [max(1, int(height * 2 ** -draw.uniform(1, 7))) for _ in range(12)]
    live: list[tuple[int, int, int]] = []  # low, high, start
    boxes: list[Lifetime] = []
    now = 0
    while len(boxes) < count:
        kept = []
        chance = 0.5 if draw.random() < 0.3 else 0.08
        for low, high, start in live:
            if draw.random() < chance:
                boxes.append((start, now, high - low))
            else:
                kept.append((low, high, start))
        live, reached = [], 0
        for low, high, start in [*sorted(kept), (height, height, now)]:
            while reached < low:
                size = draw.choice(sizes)
                if size > low - reached or low - reached - size < height // 128:
                    size = low - reached
                live.append((reached, reached + size, now))
                reached += size
            live.append((low, high, start))
            reached = high
        live = [box for box in live if box[0] < box[1]]
        now += 1
    boxes += [(start, now, high - low) for low, high, start in live if start < now]
    draw.shuffle(boxes)
    return boxes
