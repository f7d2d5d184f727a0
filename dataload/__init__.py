"""From the lines of a split to batches on the device: datasets, and the loader for training loops."""

from typing import TYPE_CHECKING

from splits.lazy import lazy_names

if TYPE_CHECKING:
    from dataload.batch import Batch
    from dataload.config import DataConfig
    from dataload.datasets import open_dataset
    from dataload.datasets.base import Dataset
    from dataload.datasets.sequences import SequenceDataset
    from dataload.frames.frame_ref import FrameRef
    from dataload.given import data_config
    from dataload.loader import Loader
    from dataload.store.build import StoreError
    from dataload.training_data import open_loader, read_list

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Batch": "dataload.batch",
            "DataConfig": "dataload.config",
            "Dataset": "dataload.datasets.base",
            "FrameRef": "dataload.frames.frame_ref",
            "Loader": "dataload.loader",
            "SequenceDataset": "dataload.datasets.sequences",
            "StoreError": "dataload.store.build",
            "data_config": "dataload.given",
            "open_dataset": "dataload.datasets",
            "open_loader": "dataload.training_data",
            "read_list": "dataload.training_data",
        },
    )

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "FrameRef",
    "Loader",
    "SequenceDataset",
    "StoreError",
    "__version__",
    "data_config",
    "open_dataset",
    "open_loader",
    "read_list",
]
