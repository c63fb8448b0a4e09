"""A multi-layer perceptron, made of torch.nn's own classes only."""

from collections import OrderedDict

from torch import nn


def build(hidden: tuple[int, int] = (32, 16)) -> nn.Sequential:
    """[N, 1, 8, 8] pixels to [N, 10] scores."""
    first, second = hidden
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            linear1=nn.Linear(64, first),
            relu1=nn.ReLU(),
            dropout=nn.Dropout(0.1),
            linear2=nn.Linear(first, second),
            relu2=nn.ReLU(),
            head=nn.Linear(second, 10),
        )
    )
