"""Data sets: built in, downloaded, or read from files; `registry` lists them."""

from funcnet.datasets.arrays import load_arrays, read_inputs
from funcnet.datasets.cifar10 import download_cifar10, find_cifar10, load_cifar10
from funcnet.datasets.convert import convert_dataset
from funcnet.datasets.dataset import Dataset, check_dataset
from funcnet.datasets.digits import load_digits
from funcnet.datasets.disk import Stored
from funcnet.datasets.encoding import Encoding, Feature
from funcnet.datasets.images import load_images
from funcnet.datasets.notes import DataWarning
from funcnet.datasets.registry import load_dataset
from funcnet.datasets.tables import load_table

__all__ = [
    "DataWarning",
    "Dataset",
    "Encoding",
    "Feature",
    "Stored",
    "check_dataset",
    "convert_dataset",
    "download_cifar10",
    "find_cifar10",
    "load_arrays",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_images",
    "load_table",
    "read_inputs",
]
