"""The ways in which many small networks are trained elsewhere: one after another.

Each gives the held-out loss of each network after the same number of steps of the same batches.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sml_kernel.sbi.stack.batches import Sample, Shares
from sml_kernel.sbi.stack.members import Member, Recipe
from sml_kernel.sbi.stack.perceptrons import Perceptron


def eager(
    many: list[Member],
    training: Sample,
    held_out: Sample,
    recipe: Recipe,
    *,
    compiled: bool = False,
) -> list[float]:
    """The epochs of each member as a loop in plain torch does it, judged at each end of one."""
    shares, losses = Shares(training, 0), []
    for member in many:
        seen, net = shares.of(member), _network(member, training, recipe)
        x, y, w = training.x[seen.rows], seen.targets, seen.weights
        forward = torch.compile(net) if compiled else net
        adam = torch.optim.Adam(net.parameters(), member.learning_rate)
        generator = torch.Generator().manual_seed(member.seed)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(x), generator=generator).split(recipe.batch):
                adam.zero_grad()
                logits = forward(x[rows]).squeeze(1)
                functional.binary_cross_entropy_with_logits(logits, y[rows], w[rows]).backward()
                adam.step()
            loss = judged(net, held_out)
        losses.append(loss)
    return losses


def _network(member: Member, training: Sample, recipe: Recipe) -> nn.Sequential:
    torch.manual_seed(member.seed)
    return Perceptron(training.x.shape[1], recipe.hidden, recipe.activation).module()


@torch.no_grad()
def judged(net: nn.Module, held_out: Sample) -> float:
    """Binary cross-entropy of held-out events."""
    logits = net(held_out.x).squeeze(1)
    return functional.binary_cross_entropy_with_logits(logits, held_out.classes.float()).item()


def processes(
    many: list[Member], training: Sample, held_out: Sample, recipe: Recipe
) -> list[float]:
    """Two processes of one thread each, which joblib keeps for the next round."""
    import joblib

    jobs = (joblib.delayed(_alone)(member, training, held_out, recipe) for member in many)
    return joblib.Parallel(n_jobs=2)(jobs)


def _alone(member: Member, training: Sample, held_out: Sample, recipe: Recipe) -> float:
    torch.set_num_threads(1)
    return eager([member], training, held_out, recipe)[0]


def lightning(
    many: list[Member], training: Sample, held_out: Sample, recipe: Recipe
) -> list[float]:
    """A Trainer for each, batches from a DataLoader, as it is done where each job is a network."""
    from lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    class Classifier(LightningModule):
        def __init__(self, net: nn.Module, learning_rate: float) -> None:
            super().__init__()
            self.net, self.learning_rate = net, learning_rate

        def training_step(self, batch: list[Tensor], number: int) -> Tensor:
            x, y = batch
            return functional.binary_cross_entropy_with_logits(self.net(x).squeeze(1), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), self.learning_rate)

    found = TensorDataset(training.x, training.classes.float())
    losses = []
    for member in many:
        module = Classifier(_network(member, training, recipe), member.learning_rate)
        order = torch.Generator().manual_seed(member.seed)
        loader = DataLoader(found, recipe.batch, shuffle=True, generator=order, drop_last=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about workers of the loader and missing loggers
            Trainer(
                accelerator="cpu",
                max_epochs=recipe.epochs,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(module, loader)
        losses.append(judged(module.net, held_out))
    return losses


def sbi_loop(many: list[Member], training: Sample, held_out: Sample, recipe: Recipe) -> list[float]:
    """`sbi`'s classifiers of pairs (class, event), true or shuffled, one after another.

    That is how its ensembles are made. A network has the class as one more feature and is asked
    twice for each event; r(x | 1)/r(x | 0) is the ratio of classes. Its losses of validation are
    of events of its own.
    """
    from sbi.inference import NRE_A
    from sbi.neural_nets.ratio_estimators import RatioEstimator
    from sbi.utils.tracking import TensorBoardTracker
    from torch.utils.tensorboard.writer import SummaryWriter

    inputs, share = training.x.shape[1], len(held_out.x) / (len(training.x) + len(held_out.x))
    x, classes = (
        torch.cat([getattr(training, name), getattr(held_out, name)]) for name in ("x", "classes")
    )
    losses = []
    for member in many:
        torch.manual_seed(member.seed)
        net = Perceptron(inputs + 1, recipe.hidden, recipe.activation).module()

        def build(theta: Tensor, x: Tensor, net: nn.Module = net) -> RatioEstimator:
            return RatioEstimator(net, theta[0].shape, x[0].shape)

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the end of epochs, which is asked for
            tracker = TensorBoardTracker(SummaryWriter(Path(folder)))
            trainer = NRE_A(classifier=build, tracker=tracker, show_progress_bars=False)
            found = trainer.append_simulations(classes[:, None].float(), x).train(
                training_batch_size=recipe.batch,
                learning_rate=member.learning_rate,
                validation_fraction=share,
                stop_after_epochs=recipe.epochs,
                max_num_epochs=recipe.epochs - 1,  # it counts from 0
            )
        losses.append(judged(_OfClasses(found.net), held_out))
    return losses


class _OfClasses(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] events → [N, 1] log ratio of classes 1 and 0."""
        one, none = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        return self.net(torch.cat([one, x], 1)) - self.net(torch.cat([none, x], 1))
