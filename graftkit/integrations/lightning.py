"""A Lightning callback that grows a part of a LightningModule while the Trainer trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from graftkit.core.errors import RuntimeMissingError, TrainingError
from graftkit.growing import Grower, told

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
else:
    try:
        from lightning.pytorch import Callback
        from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
    except ImportError:
        try:
            from pytorch_lightning import Callback
            from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
        except ImportError as error:
            raise RuntimeMissingError(
                "Lightning is not installed; pip install 'graftkit[lightning]' brings it"
            ) from error


class Growth(Callback):
    """Grafts dendrites where the monitored score no longer rises, and stops the Trainer where they no longer help.

    ```python
    growth = Growth(example_inputs, attribute="net", monitor="val_acc")
    trainer = Trainer(max_epochs=200, callbacks=[growth])
    trainer.fit(module, train_loader, val_loader)
    growth.grower.export("model.onnx")
    ```

    The part called `attribute` is replaced by one that is called in the same way, over the same parameters, and takes
    dendrites in. A checkpoint of the Trainer holds the part without dendrites under its own names, so that it loads
    into the module as it is written; the dendrites come with the callback's own state, and `fit` with `ckpt_path` goes
    on with them, also where nothing is left to train. After `fit` the module is in its best state.

    Args:
        example_inputs: what the part (not the whole module) takes, at least two rows.
        attribute: the part of the LightningModule that grows.
        monitor: the metric that was logged, once a validation.
        mode: "max" where a higher score is better, "min" for a loss.
        how: everything else that `graftkit.Grower` takes.

    Attributes:
        grower: the `Grower`, once training has begun.

    Raises TrainingError, from the Trainer: there is no such part or metric, several optimizers, or a checkpoint is to
    be validated or tested, which holds the part without dendrites.
    """

    def __init__(
        self,
        example_inputs: Any,
        *,
        attribute: str = "model",
        monitor: str = "val_acc",
        mode: Literal["max", "min"] = "max",
        **how: Any,
    ):
        super().__init__()
        self.example_inputs, self.attribute, self.monitor, self.mode, self.how = (
            example_inputs,
            attribute,
            monitor,
            mode,
            how,
        )
        self.grower: Grower
        self._restored: Mapping[str, Any] | None = None
        self._guard: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to load what would be the network without its dendrites."""
        if stage == "fit":
            return

        what = str(getattr(stage, "value", stage))

        def refuse(*_: Any) -> None:
            self.teardown(trainer, pl_module, stage)
            raise TrainingError(
                f"a checkpoint holds {self.attribute!r} without its dendrites, so {what} would not see them; leave"
                " ckpt_path out (after fit the module is in its best state), or let fit go on from it first"
            )

        self._guard = pl_module.register_load_state_dict_pre_hook(refuse)  # type: ignore[no-untyped-call]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on anything may be loaded."""
        if self._guard is not None:
            self._guard.remove()
        self._guard = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take hold of the part, the optimizer and its schedules."""
        part = dict(pl_module.named_children()).get(self.attribute)
        if part is None:
            there = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise TrainingError(
                f"the module has no part {self.attribute!r} that could grow (attribute=); there are {there}"
            )
        if len(trainer.optimizers) != 1:
            raise TrainingError(f"the module has {len(trainer.optimizers)} optimizers, and growth works with one")
        example = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(pl_module.device), self.example_inputs)
        self.grower = Grower(
            part,
            example,
            trainer.optimizers[0],
            lr_scheduler=[config.scheduler for config in trainer.lr_scheduler_configs],
            mode=self.mode,
            **{"observer": told(rank_zero_info, rank_zero_warn), **self.how},
        )
        setattr(pl_module, self.attribute, self.grower.model)
        if self._restored is not None:
            self.grower.load_state_dict(self._restored)
            self._restored = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the Grower the score, before any checkpoint is written of this moment."""
        if trainer.sanity_checking or not hasattr(self, "grower") or self.grower.finished:
            return
        if self.monitor not in trainer.callback_metrics:
            there = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise TrainingError(f"no metric {self.monitor!r} was logged in validation; there are {there}")
        if self.grower.step(float(trainer.callback_metrics[self.monitor])).finished:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module in its best state."""
        self.grower.finish("the Trainer ended")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where there was nothing left to train, come to where the checkpoint was."""
        if not hasattr(self, "grower") and self._restored is not None:
            self.on_train_start(trainer, pl_module)
            self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Growth, for the Trainer's checkpoints."""
        return self.grower.state_dict() if hasattr(self, "grower") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Growth, from the Trainer's checkpoint, once there is an optimizer."""
        self._restored = state_dict or None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint hold module and optimizer as they are without dendrites."""
        if not hasattr(self, "grower"):
            return
        ours = f"{self.attribute}.grafted."
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            name.replace(f"{ours}base.", f"{self.attribute}.", 1): tensor
            for name, tensor in state.items()
            if not name.startswith(f"{ours}dendrites.")
        }
        checkpoint["optimizer_states"] = [self.grower.optimizer_state_dict()]
        checkpoint["lr_schedulers"] = self.grower.scheduler_state_dicts()


__all__ = ["Growth"]
