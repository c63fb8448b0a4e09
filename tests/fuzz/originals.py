"""The good files that are broken: each function writes those of one format into a folder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

from graftkit import api

from .nets import Choosing, Sizes, Small, grafted, stack


def modules(folder: Path) -> None:
    torch.save(stack(), folder / "0.pt")
    torch.save({"model": stack(), "epoch": 3}, folder / "1.pt")
    torch.save(nn.Sequential(nn.LSTM(2, 2), nn.MultiheadAttention(4, 2)), folder / "2.pt")


def weights(folder: Path) -> None:
    state = Small().state_dict()
    torch.save(state, folder / "0.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, folder / "1.pt")
    optimizer = torch.optim.Adam(Small().parameters()).state_dict()
    torch.save({"model": state, "optimizer": optimizer, "name": "small"}, folder / "2.pt")


def lightning(folder: Path) -> None:
    checkpoint = {
        "pytorch-lightning_version": "2.4.0",
        "epoch": 1,
        "hyper_parameters": {"width": 3, "names": ["a", "b"], "rate": 0.1},
        "state_dict": {f"model.{key}": value for key, value in Small().state_dict().items()},
        "callbacks": {"ModelCheckpoint": {"best": torch.ones(2)}},
    }
    torch.save(checkpoint, folder / "0.ckpt")


def legacy(folder: Path) -> None:
    torch.save(Small().state_dict(), folder / "0.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": Small().state_dict()}, folder / "1.pt", _use_new_zipfile_serialization=False)


def safetensors(folder: Path) -> None:
    save_file(Small().state_dict(), folder / "0.safetensors", metadata={"format": "pt"})


def dendrites(folder: Path) -> None:
    api.save_dendrites(grafted(), folder / "0.safetensors")


def sharded(folder: Path) -> None:
    state = Small().state_dict()
    names = {key: f"shard-{number % 2}.safetensors" for number, key in enumerate(state)}
    for file in set(names.values()):
        save_file({key: value for key, value in state.items() if names[key] == file}, folder / file)
    (folder / "0.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def programs(folder: Path) -> None:
    _exported(Small(), (torch.randn(4, 1, 6, 6),), folder / "0.pt2")
    _exported(Sizes(), (torch.randn(4, 6, 4),), folder / "1.pt2")


def _exported(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    sizes = tuple({0: Dim.DYNAMIC, 1: Dim.AUTO} for _ in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=sizes), path)


def scripts(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Small()), str(folder / "0.pt"))
        torch.jit.save(torch.jit.trace(Small().eval(), torch.randn(2, 1, 6, 6)), str(folder / "1.pt"))
        torch.jit.save(torch.jit.script(Choosing()), str(folder / "2.pt"))
        torch.jit.save(torch.jit.freeze(torch.jit.script(Choosing().eval())), str(folder / "3.pt"))


def arrays(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((12, 1, 6, 6), dtype=np.float32), np.arange(12) % 3
    np.savez(folder / "0.npz", x_train=images, y_train=labels)
    np.savez_compressed(
        folder / "1.npz",
        a_train=images,
        b_train=labels,
        y_train=labels / 3,
        a_val=images,
        b_val=labels,
        y_val=labels / 3,
    )
