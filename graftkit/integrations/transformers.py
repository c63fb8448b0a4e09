"""A callback for the Trainer of transformers that grows the model while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from graftkit.core.errors import RuntimeMissingError, TrainingError
from graftkit.growing import Grower, growable

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise RuntimeMissingError("transformers is not installed; pip install 'graftkit[trainer]' brings it") from error


class Growth(TrainerCallback):
    """Grafts dendrites where the metric no longer gets better, and stops the Trainer where they no longer help.

    ```python
    growth = Growth(model, example_inputs, metric="eval_accuracy")
    trainer = Trainer(model=growth.model, args=arguments, callbacks=[growth], compute_loss_func=my_loss, ...)
    trainer.train()
    growth.grower.export("model.onnx")
    ```

    The arguments need `remove_unused_columns=False`, `label_names=["labels"]` and an evaluation each epoch, and the
    Trainer a `compute_loss_func`, for the graphs hold the network and no loss.

    Args:
        model: the model, which need not be of transformers.
        example_inputs: what it takes without labels, at least two rows.
        metric: of the evaluation, as the Trainer calls it: "eval_loss", "eval_accuracy".
        mode: "max" where a higher metric is better, "min" for a loss; as the name says where it is None.
        how: everything else that `graftkit.Grower` takes.

    Attributes:
        model: what the Trainer is given: called like the model, over the same parameters.
        grower: the `Grower`, once training has begun.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        metric: str = "eval_loss",
        mode: Literal["max", "min"] | None = None,
        output: str | None = None,
        dynamic: str = "auto",
        **how: Any,
    ):
        self.model = growable(model, example_inputs, output=output, dynamic=dynamic)
        self.model.accepts_loss_kwargs = False  # type: ignore[assignment]  # what the Trainer asks a model
        self.metric, self.how = metric, how
        self.mode: Literal["max", "min"] = mode or ("min" if "loss" in metric else "max")
        self.grower: Grower

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Take hold of the optimizer and its schedule."""
        if args.remove_unused_columns or not args.label_names:
            raise TrainingError(
                "the Trainer would drop the rows' columns: give its arguments remove_unused_columns=False and"
                ' label_names=["labels"]'
            )
        self.grower = Grower(
            self.model,
            None,
            given["optimizer"],
            lr_scheduler=given["lr_scheduler"],
            mode=self.mode,
            **self.how,
        )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> TrainerControl:
        """Tell the Grower the metric."""
        if not hasattr(self, "grower") or self.grower.finished:
            return control
        metrics = given["metrics"]
        if self.metric not in metrics:
            raise TrainingError(f"the evaluation gives no {self.metric!r}; it gives {', '.join(sorted(metrics))}")
        if self.grower.step(float(metrics[self.metric])).finished:
            control.should_training_stop = True
        return control

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Leave the model in its best state."""
        self.grower.finish()


__all__ = ["Growth"]
