"""A 1-D convolution and a GRU that read an image row by row."""

from torch import Tensor, nn


class RowReader(nn.Module):
    """[N, 1, 8, 8] pixels to [N, 10] scores: rows are time, columns are channels."""

    def __init__(self, channels: int = 12, hidden: int = 16, dropout: float = 0.1):
        super().__init__()
        self.convolution = nn.Conv1d(8, channels, 3, padding=1)
        self.activation = nn.ReLU()
        self.gru = nn.GRU(channels, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the ten digits."""
        rows = images.squeeze(1).transpose(1, 2)  # [N, columns, rows]
        read = self.activation(self.convolution(rows)).transpose(1, 2)
        return self.head(self.dropout(self.gru(read)[0][:, -1]))


def build() -> RowReader:
    """A fresh one."""
    return RowReader()
