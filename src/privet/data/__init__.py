"""Examples, and readers of public file formats that never unpickle and never download."""

from privet.data.cifar import cifar10, cifar100
from privet.data.digits import digits
from privet.data.examples import Examples
from privet.data.folder import image_folder
from privet.data.load import load
from privet.data.mnist import fashion_mnist, mnist
from privet.data.mnist5k import mnist5k
from privet.data.npz import npz, save_npz
from privet.data.torch_dataset import from_dataset

__all__ = [
    "Examples",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "from_dataset",
    "image_folder",
    "load",
    "mnist",
    "mnist5k",
    "npz",
    "save_npz",
]
