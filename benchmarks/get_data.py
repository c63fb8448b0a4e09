"""Fetches the data of the benchmarks from their public sources: fsdd.npz, mnist.npz and cifar10_part.npz."""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tarfile
import urllib.request
import wave
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
VOICES = ("george", "jackson", "lucas", "nicolas")  # whom the results in docs are about; two more exist

# One second of speech at 8 kHz in 49 frames.
RATE, WINDOW, HOP, FRAMES, BANDS, LOWEST, HIGHEST = 8000, 256, 160, 49, 32, 60, 3800


def log_mel(samples: np.ndarray) -> np.ndarray:
    """[samples] of -1 to 1 to [49, 32]: natural log of the power in bands as far apart as O'Shaughnessy's mel says."""
    whole = np.pad(samples[:RATE], (0, max(0, RATE - len(samples))))
    frames = np.stack([whole[HOP * n : HOP * n + WINDOW] for n in range(FRAMES)]) * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ _bands().T + 1e-6)


def _bands() -> np.ndarray:
    """[bands, bins]: triangles between the bins nearest below each band's edges and middle."""
    mels = np.linspace(*(2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)), BANDS + 2)
    edges = np.floor((WINDOW + 1) * 700 * (10 ** (mels / 2595) - 1) / RATE).astype(int)
    bands = np.zeros((BANDS, WINDOW // 2 + 1))
    for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        bands[band, low:middle] = (np.arange(low, middle) - low) / max(1, middle - low)
        bands[band, middle:high] = (high - np.arange(middle, high)) / max(1, high - middle)
    return bands


def spoken_digits(archive: bytes) -> Mapping[str, np.ndarray]:
    """Recordings DIGIT_VOICE_NUMBER.wav of the four voices."""
    rows = []
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for name in sorted(files.namelist()):
            digit, _, rest = Path(name).stem.partition("_")
            voice, _, number = rest.partition("_")
            if "/recordings/" in name and name.endswith(".wav") and voice in VOICES:
                with wave.open(io.BytesIO(files.read(name))) as file:
                    samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768
                rows.append((log_mel(samples), int(digit), voice, int(number)))
    x, y, speaker, index = zip(*rows, strict=True)
    return {
        "x": np.array(x, np.float16), "y": np.array(y, np.uint8), "speaker": np.array(speaker),
        "index": np.array(index, np.uint8),
    }  # fmt: skip


def handwritten(images: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and classes of one part of MNIST, from its two files."""
    pixels = np.frombuffer(gzip.decompress(images), np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(gzip.decompress(labels), np.uint8, offset=8)


def pictures(archive: bytes) -> Mapping[str, np.ndarray]:
    """The first 16,000 training pictures of CIFAR-10, 4,000 of them to test; the official test set is not touched."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        batches = [files.extractfile(f"cifar-10-batches-bin/data_batch_{n}.bin") for n in (1, 2)]
        raw = np.frombuffer(b"".join(file.read() for file in batches if file), np.uint8).reshape(-1, 3073)[:16_000]
    x, y = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw[:, 0]
    return {"x_train": x[:12_000], "y_train": y[:12_000], "x_test": x[12_000:], "y_test": y[12_000:]}


def _mnist(fetch: Callable[[str], bytes]) -> Mapping[str, np.ndarray]:
    found = {}
    for part, name in (("train", "train"), ("test", "t10k")):
        files = (fetch(f"{MNIST}{name}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        found[f"x_{part}"], found[f"y_{part}"] = handwritten(*files)
    return found


def fetched(address: str) -> bytes:
    """What lies at an address."""
    print(f"fetching {address}", file=sys.stderr)
    with urllib.request.urlopen(address, timeout=60) as answer:
        found: bytes = answer.read()
    return found


def main() -> None:
    """Fetch what is not yet there."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("folder", type=Path)
    folder = made.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    kinds: Mapping[str, Callable[[], Mapping[str, np.ndarray]]] = {
        "fsdd.npz": lambda: spoken_digits(fetched(FSDD)),
        "mnist.npz": lambda: _mnist(fetched),
        "cifar10_part.npz": lambda: pictures(fetched(CIFAR)),
    }
    for name, make in kinds.items():
        if not (folder / name).exists():
            arrays = make()
            partial = folder / f"{name}.part.npz"
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
            partial.replace(folder / name)
            print(f"{folder / name}: {len(next(iter(arrays.values()))):,} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
