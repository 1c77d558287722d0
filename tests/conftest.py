"""What every test may rely on."""

import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("privet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("privet")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no accelerator here"))
