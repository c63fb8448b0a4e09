"""Lets a dendrite serve some of a site's neurons: numbers for those alone, spread over all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Spread(nn.Module):
    """Brings rows for the served neurons, [served, ...], among zeros for all others, [neurons, ...].

    The rows of a transposed convolution lie along its axis 1. A product with zeros and ones: of weights it is computed
    when a file is written, of activities it is a 1x1 convolution, which every runtime has.
    """

    matrix: Tensor

    def __init__(self, neurons: Sequence[int], count: int, axis: int = 0):
        super().__init__()
        self.axis = axis
        matrix = torch.zeros(count, len(neurons))
        matrix[list(neurons), range(len(neurons))] = 1
        self.neurons = tuple(neurons)
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        first = rows.movedim(self.axis, 0)
        return (self.matrix @ first.reshape(len(first), -1)).reshape(-1, *first.shape[1:]).movedim(0, self.axis)

    def activity(self, activity: Tensor, *, channels_last: bool) -> Tensor:
        """[batch, served, ...], or [..., served], over all neurons."""
        if channels_last:
            return activity @ self.matrix.t()
        kernel = self.matrix.reshape(*self.matrix.shape, *(1 for _ in activity.shape[2:]))
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[activity.ndim - 3]
        return convolve(activity, kernel)


def slices(answering: nn.Module) -> bool:
    """Whether the operator's weights are a row for each neuron, or a column of a transposed one's."""
    return not isinstance(answering, _TRANSPOSED) or answering.groups == 1


def narrow(answering: nn.Module, neurons: Sequence[int]) -> None:
    """Leave, in place, a Linear or ungrouped Conv with these neurons alone."""
    for name, parameter in list(answering.named_parameters(recurse=False)):
        answering.register_parameter(name, _rows(parameter, neurons, _axis(answering, name)))
    if isinstance(answering, nn.Linear):
        answering.out_features = len(neurons)
    else:
        answering.out_channels = len(neurons)  # type: ignore[assignment]


def spread_rows(answering: nn.Module, spread: Spread) -> None:
    """Let a Linear or Conv hold, in place, numbers for the served neurons alone; the others read zeros.

    Its output keeps its width.
    """
    for name, parameter in list(answering.named_parameters(recurse=False)):
        axis = _axis(answering, name)
        own = Spread(spread.neurons, len(spread.matrix), axis).to(parameter)
        answering.register_parameter(name, _rows(parameter, spread.neurons, axis))
        parametrize.register_parametrization(answering, name, own, unsafe=True)  # it changes the shape


def held(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter that a module learns under `name`, which may be spread."""
    if parametrize.is_parametrized(module, name):
        found = module.parametrizations[name].original  # type: ignore[index, union-attr]
    else:
        found = getattr(module, name)
    assert isinstance(found, nn.Parameter)
    return found


def _axis(answering: nn.Module, name: str) -> int:
    return 1 if name == "weight" and isinstance(answering, _TRANSPOSED) else 0


def _rows(parameter: nn.Parameter, neurons: Sequence[int], axis: int) -> nn.Parameter:
    rows = parameter.detach().index_select(axis, torch.tensor(list(neurons), device=parameter.device)).clone()
    return nn.Parameter(rows, requires_grad=parameter.requires_grad)


def only(parameter: nn.Parameter, neurons: Sequence[int]) -> nn.Parameter:
    """A parameter of one number a neuron, for these neurons alone."""
    return _rows(parameter, neurons, 0)
