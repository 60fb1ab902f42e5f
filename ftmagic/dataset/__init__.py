"""Datasets as a user handles them: rows to look at, filter, split, check, write and read.

`view` has the rows, `call_log` the calls they came from, `listing` the datasets there are. Knows
nothing of engines beyond their limits, and nothing of notebooks.
"""

from __future__ import annotations

from ftmagic.dataset.call_log import CallLog, calls
from ftmagic.dataset.listing import DatasetList, datasets
from ftmagic.dataset.values import Imported, TokenCount
from ftmagic.dataset.view import Dataset, SplitDatasets, examples, trainable

__all__ = [
    "CallLog",
    "Dataset",
    "DatasetList",
    "Imported",
    "SplitDatasets",
    "TokenCount",
    "calls",
    "datasets",
    "examples",
    "trainable",
]
