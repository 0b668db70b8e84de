"""Data sets: built in, downloaded, or read from files."""

from funcnet.datasets.arrays import load_arrays, read_inputs
from funcnet.datasets.cifar10 import download_cifar10, find_cifar10, load_cifar10
from funcnet.datasets.dataset import Dataset, Source, check_dataset, fingerprint, first
from funcnet.datasets.digits import load_digits
from funcnet.datasets.registry import DATASETS, FILE_OPTIONS, is_file, load_dataset

__all__ = [
    "DATASETS",
    "FILE_OPTIONS",
    "Dataset",
    "Source",
    "check_dataset",
    "download_cifar10",
    "find_cifar10",
    "fingerprint",
    "first",
    "is_file",
    "load_arrays",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "read_inputs",
]
