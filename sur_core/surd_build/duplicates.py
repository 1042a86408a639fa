"""Pictures that look the same: perceptual hashes a few bits apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROWS, _COLUMNS = 64, 4096
"""Hashes compared at once: the intermediate results stay in a core's cache."""


def near_duplicates(hashes: Sequence[str], distance: int) -> list[tuple[int, int] | None]:
    """For each hash an earlier one that stays and is at most ``distance`` bits away; None if it stays itself.

    The order decides who stays: the first one does, and nobody is left out for one that is left out itself,
    so that chains of small differences do not swallow what differs much.

    Args:
        hashes: 16 hex digits each, the one to be preferred first.
        distance: 0 or more bits of 64.

    Returns:
        (index of the one that stays, bits) or None, for each: the nearest before it, of equally near ones the
        first. Equal hashes get the same answer.
    """
    values = np.array([int(text, 16) for text in hashes], np.uint64)
    # Equal hashes first: a set of one picture ten thousand times then costs no more than one.
    unique, firsts, which = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    firsts, rank = firsts[order], place[which]
    leaders = _leaders(unique[order], distance)
    found: list[tuple[int, int] | None] = []
    for index, group in enumerate(rank):
        leader, bits = leaders[group]
        stays = leader == group and firsts[group] == index
        found.append(None if stays else (int(firsts[leader]), bits))
    return found


def _leaders(values: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """(index of the value that stays, bits) for each of different values; itself and 0 if it stays."""
    leaders: list[tuple[int, int]] = []
    kept = np.empty(len(values), np.int64)
    kept_values = np.empty(len(values), np.uint64)
    count = 0
    for start in range(0, len(values), _ROWS):
        block = values[start : start + _ROWS]
        nearest, bits = _nearest(block, kept_values[:count])
        before = count
        for offset, value in enumerate(block):
            best, leader = int(bits[offset]), int(nearest[offset])
            if count > before:  # those that stay of this very block
                own = np.bitwise_count(kept_values[before:count] ^ value)
                if own.min() < best:
                    best, leader = int(own.min()), before + int(own.argmin())
            if best <= distance:
                leaders.append((int(kept[leader]), best))
            else:
                leaders.append((start + offset, 0))
                kept[count], kept_values[count] = start + offset, value
                count += 1
    return leaders


def _nearest(block: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each value of ``block`` the index of the nearest of ``known``, and its distance; 255 if none."""
    nearest = np.zeros(len(block), np.int64)
    bits = np.full(len(block), 255, np.uint8)
    for start in range(0, len(known), _COLUMNS):
        distances = np.bitwise_count(block[:, None] ^ known[None, start : start + _COLUMNS])
        here = distances.min(axis=1)
        closer = here < bits
        if closer.any():
            nearest[closer] = start + distances[closer].argmin(axis=1)
            bits[closer] = here[closer]
    return nearest, bits
