"""A keyword spotter meets a new voice: what a few clips buy by dendrites, LoRA, a linear probe or full fine-tuning."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from _arms import BATCH, markdown, mean_se, shown
from _nets import speech_cnn
from torch import Tensor, nn
from torch.nn import functional

from graftkit import surgery
from graftkit.api import trace
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient
from graftkit.training import Recipe, seeded

RATES = (1e-3, 5e-3, 2e-2, 4e-2, 8e-2)
LINEAR = "lowrank:rank=1,activation=linear"
GATE = "context:units=4,mode=gate"
CENTRE = "conv=adapter:rank={},centre=true"
# Each one or several dendrites at every site; a pair is one kind for convolutions and one for the output layer.
KINDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lowrank, rank 1, linear": ((LINEAR,),),
    "gating context, 4 units": ((GATE,),),
    "adapter, rank 2 (the defaults)": (("adapter:rank=2,centre=true",),),
    "adapter, rank 2 at the centre; pooled, 8 groups": ((CENTRE.format(2), "linear=pooled:groups=8"),),
    "adapter, rank 2 at the centre; pooled, 16 groups": ((CENTRE.format(2), "linear=pooled"),),
    "adapter, rank 4 at the centre; pooled, 16 groups": ((CENTRE.format(4), "linear=pooled"),),
}
LORA = {"none": "LoRA", "all": "LoRA and biases"}  # what PEFT calls the biases that learn, and its name here
RANKS = ((1, 1), (2, 1), (2, 2), (4, 4))  # of LoRA at the convolutions and at the output layer
Rows = tuple[Tensor, Tensor]
Arm = tuple[Callable[[Tensor], Tensor], list[nn.Parameter]]  # what computes, and what is trained


def voices(path: Path) -> dict[str, Rows]:
    """Each speaker's recordings, [N, 16, 49], and words."""
    found = np.load(path)
    bands = found["x"].astype(np.float32).reshape(-1, 49, 16, 2).mean(-1).transpose(0, 2, 1)
    inputs = torch.from_numpy((bands - bands.mean()) / bands.std())
    targets = torch.from_numpy(found["y"].astype(np.int64))
    return {
        name: (inputs[own], targets[own])
        for name in sorted(set(found["speaker"]))
        for own in [torch.from_numpy(found["speaker"] == name)]
    }


def few(rows: Rows, clips: int, seed: int) -> tuple[Rows, Rows]:
    """So many clips of each word, and all others."""
    order = torch.randperm(len(rows[1]), generator=torch.Generator().manual_seed(seed))
    taken = torch.cat([order[rows[1][order] == word][:clips] for word in range(10)])
    rest = order[~torch.isin(order, taken)]
    return (rows[0][taken], rows[1][taken]), (rows[0][rest], rows[1][rest])


def tune(arm: Arm, rows: Rows, *, rate: float, epochs: int, batch: int, seed: int) -> None:
    """The same loop for every arm: AdamW, warm-up, half a cosine; the last state stays."""
    forward, parameters = arm
    recipe = Recipe(learning_rate=rate)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=recipe.weight_decay)
    steps = epochs * -(-len(rows[1]) // batch)
    course = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, steps))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for part in torch.randperm(len(rows[1]), generator=generator).split(batch):
            optimizer.zero_grad()
            functional.cross_entropy(forward(rows[0][part]), rows[1][part]).backward()
            optimizer.step()
            course.step()


def score(forward: Callable[[Tensor], Tensor], rows: Rows) -> float:
    """Accuracy in percent."""
    with torch.no_grad():
        return 100 * float((forward(rows[0]).argmax(1) == rows[1]).float().mean())


class Spotter:
    """A trained network, and the ways to adapt it; each begins at the same weights."""

    def __init__(self, rows: Rows, widths: tuple[int, int], seed: int, epochs: int):
        with seeded(seed):
            self.net = speech_cnn(widths)
            tune((self.net, [*self.net.parameters()]), rows, rate=5e-3, epochs=epochs, batch=BATCH, seed=seed)
        self.state = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        self.model: GraftedModel = surgery.empty(trace(self.net, rows[0][:2]))
        self.seed = seed

    def arms(self) -> Mapping[str, Callable[[], Arm]]:
        """By name, what makes an arm anew."""
        dendrites = {f"dendrites: {name}": lambda name=name: self._dendrites(name) for name in KINDS}
        lora = {
            f"{LORA[biases]}, ranks {c} and {o}": lambda c=c, o=o, biases=biases: self._lora(c, o, biases)
            for biases in LORA
            for c, o in RANKS
        }
        head = list(self.net)[-1]  # type: ignore[arg-type]
        return {
            "linear probe": lambda: self._plain(list(head.parameters())),
            "everything": lambda: self._plain([*self.net.parameters()]),
            **lora,
            **dendrites,
        }

    def back(self) -> None:
        """The network as it was trained, nothing grafted."""
        surgery.truncate(self.model, type(self.model.plan)())
        self.net.load_state_dict(self.state)

    def _plain(self, parameters: list[nn.Parameter]) -> Arm:
        self.back()
        return self.net, parameters

    def _dendrites(self, name: str) -> Arm:
        self.back()
        traced, rule = self.model.traced, Gradient(freeze=True)
        plans = [plan_cycle(traced, dendrites=kinds, sites=("*",), rule=rule)[0] for kinds in KINDS[name]]
        surgery.graft(self.model, [graft for plan in plans for graft in plan.grafts], build_dendrite, seed=self.seed)
        return self.model.eval(), [*self.model.dendrites.parameters()]

    def _lora(self, rank: int, output: int, biases: str) -> Arm:
        from peft import LoraConfig, get_peft_model

        self.back()
        own = speech_cnn(tuple(layer.out_channels for layer in self.net if isinstance(layer, nn.Conv1d)))
        own.load_state_dict(self.state)
        names = [name for name, layer in own.named_modules() if isinstance(layer, nn.Conv1d | nn.Linear)]
        with seeded(self.seed):
            ranks, alphas = {names[-1]: output}, {names[-1]: 2 * output}
            config = LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                target_modules=names,
                rank_pattern=ranks,
                alpha_pattern=alphas,
                bias=biases,  # type: ignore[arg-type]
            )
            made = get_peft_model(own, config)  # type: ignore[arg-type]
        return made, [p for p in made.parameters() if p.requires_grad]


Scores = dict[str, dict[float, dict[str, list[float]]]]  # arm -> learning rate -> speaker -> a score a draw of clips


def measure(path: Path, options: argparse.Namespace) -> tuple[Scores, dict[str, int]]:
    """Every speaker in turn is new, several draws of clips each."""
    found: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    sizes: dict[str, int] = {}
    everyone = voices(path)
    for speaker, own in everyone.items():
        known = [rows for name, rows in everyone.items() if name != speaker]
        others = (torch.cat([x for x, _ in known]), torch.cat([y for _, y in known]))
        for seed in range(options.seeds):
            spotter = Spotter(others, tuple(options.widths), seed, options.base_epochs)
            clips, rest = few(own, options.clips, seed)
            found["as given"][0.0][speaker].append(score(spotter.net, rest))
            for name, make in spotter.arms().items():
                for rate in RATES:
                    arm = make()
                    sizes[name] = sum(p.numel() for p in arm[1])
                    tune(arm, clips, rate=rate, epochs=options.epochs, batch=10, seed=seed)
                    found[name][rate][speaker].append(score(arm[0], rest))
            print(f"{speaker} {seed}", file=sys.stderr)
    return found, sizes


def chosen(rates: Mapping[float, Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """For each speaker the scores at the learning rate that is best for all others."""
    speakers = [*next(iter(rates.values()))]

    def best(speaker: str) -> float:
        return max(rates, key=lambda rate: np.mean([rates[rate][other] for other in speakers if other != speaker]))

    return {speaker: list(rates[best(speaker)][speaker]) for speaker in speakers}


def beside(name: str, lora: str, flat: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> str:
    """For dendrites the difference to the LoRA with the nearest number of trained parameters, run by run."""
    if not name.startswith("dendrites"):
        return ""
    nearest = min((n for n in flat if n.startswith(f"{lora},")), key=lambda n: abs(sizes[n] - sizes[name]))
    gains = [ours - theirs for ours, theirs in zip(flat[name], flat[nearest], strict=True)]
    return f"{shown(gains, sign=True)} ({sizes[nearest]})"


def main() -> None:
    """Print one table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--fsdd", type=Path, required=True, help="fsdd.npz")
    made.add_argument("--clips", type=int, default=5, help="of each word")
    made.add_argument("--seeds", type=int, default=5, help="draws of clips for each speaker")
    made.add_argument("--widths", type=int, nargs=2, default=(12, 8))
    made.add_argument("--base-epochs", type=int, default=60)
    made.add_argument("--epochs", type=int, default=40)
    options = made.parse_args()
    torch.set_num_threads(1)
    found, sizes = measure(options.fsdd, options)
    scores = {name: chosen(rates) for name, rates in found.items()}
    speakers = [*scores["as given"]]
    flat = {name: [value for own in by.values() for value in own] for name, by in scores.items()}
    probe = flat["linear probe"]
    lines = []
    for name, values in flat.items():
        gains = [ours - theirs for ours, theirs in zip(values, probe, strict=True)]
        each = [f"{mean_se(scores[name][speaker])[0]:.1f}" for speaker in speakers]
        cells = [f"{sizes[name]:,}" if name in sizes else "0", shown(values)]
        against = shown(gains, sign=True) if name != "linear probe" else ""
        lines.append([name, *cells, against, *(beside(name, lora, flat, sizes) for lora in LORA.values()), *each])
    heads = (f"− {lora} of such a size" for lora in LORA.values())
    print(markdown(("", "trained", "accuracy", "− linear probe", *heads, *speakers), lines))


if __name__ == "__main__":
    main()
