"""A convolutional net with batch norm and dropout, made of torch.nn's own classes only."""

from collections import OrderedDict

from torch import nn


def build(channels: tuple[int, int, int] = (6, 8, 12)) -> nn.Sequential:
    """[N, 1, 8, 8] pixels to [N, 10] scores."""
    first, second, third = channels
    return nn.Sequential(
        OrderedDict(
            block1=_block(1, first),
            block2=_block(first, second),
            pool1=nn.MaxPool2d(2),
            block3=_block(second, third),
            pool2=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.1),
            head=nn.Linear(third, 10),
        )
    )


def _block(inputs: int, outputs: int) -> nn.Sequential:
    # No bias: the batch norm behind it has one.
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))
