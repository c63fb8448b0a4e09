"""Lets a dendrite serve some of a site's neurons: numbers for those alone, spread over all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Spread(nn.Module):
    """Brings what belongs to the served neurons among zeros for all others.

    Weights are put in place, which is computed when a file is written. For activities it is a product with zeros and
    ones: a 1x1 convolution, which every runtime has.
    """

    matrix: Tensor
    places: Tensor

    def __init__(self, neurons: Sequence[int], count: int):
        super().__init__()
        matrix = torch.zeros(count, len(neurons))
        matrix[list(neurons), range(len(neurons))] = 1
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("places", torch.tensor(list(neurons), dtype=torch.int64), persistent=False)

    def forward(self, rows: Tensor, axis: int = 0) -> Tensor:
        first = rows.movedim(axis, 0)
        flat = first.reshape(len(first), -1)  # one dimension alone is more than the exporter can do in silence
        whole = flat.new_zeros(len(self.matrix), flat.shape[1]).index_copy(0, self.places, flat)
        return whole.reshape(-1, *first.shape[1:]).movedim(0, axis)

    def activity(self, activity: Tensor, *, channels_last: bool) -> Tensor:
        """[batch, served, ...], or [..., served], over all neurons."""
        if channels_last:
            return activity @ self.matrix.t()
        kernel = self.matrix.reshape(*self.matrix.shape, *(1 for _ in activity.shape[2:]))
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[activity.ndim - 3]
        return convolve(activity, kernel)

    def own(self, activity: Tensor, *, channels_last: bool) -> Tensor:
        """The served neurons' part of an activity over all."""
        return activity.index_select(activity.ndim - 1 if channels_last else 1, self.places)


class Spreading(nn.Module):
    """A Linear or Conv with weights for the served neurons alone, whose output has all; the others read zeros."""

    def __init__(self, narrowed: nn.Module, spread: Spread):
        super().__init__()
        self.narrowed, self.spread = narrowed, spread

    def forward(self, input: Tensor) -> Tensor:
        own = dict(self.narrowed.named_parameters())
        whole = {name: self.spread(p, _axis(self.narrowed, name)) for name, p in own.items()}
        found: Tensor = functional_call(self.narrowed, whole, (input,))
        return found


def slices(answering: nn.Module) -> bool:
    """Whether the operator's weights are a row for each neuron, or a column of a transposed one's."""
    return not isinstance(answering, _TRANSPOSED) or answering.groups == 1


def narrow(answering: nn.Module, neurons: Sequence[int]) -> None:
    """Leave, in place, a Linear or Conv with the weights of these neurons alone."""
    for name, parameter in list(answering.named_parameters(recurse=False)):
        answering.register_parameter(name, only(parameter, neurons, _axis(answering, name)))
    if isinstance(answering, nn.Linear):
        answering.out_features = len(neurons)
    else:
        answering.out_channels = len(neurons)  # type: ignore[assignment]


def only(parameter: nn.Parameter, neurons: Sequence[int], axis: int = 0) -> nn.Parameter:
    """The part of a parameter that belongs to these neurons, as a parameter of its own."""
    places = torch.tensor(list(neurons), dtype=torch.int64, device=parameter.device)
    rows = parameter.detach().index_select(axis, places).clone()
    return nn.Parameter(rows, requires_grad=parameter.requires_grad)


def _axis(answering: nn.Module, name: str) -> int:
    return 1 if name == "weight" and isinstance(answering, _TRANSPOSED) else 0
