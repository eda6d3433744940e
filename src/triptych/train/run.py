"""One training run: its network, its state and its clock."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor, nn

from triptych.data.dataset import Dataset
from triptych.data.loader import batches
from triptych.errors import TrainingError
from triptych.model.auxiliary import take_auxiliary
from triptych.model.encoder import DropTokens
from triptych.schema import Schema
from triptych.tokens import Batch
from triptych.train.augment import Augmentation, ModalityDropout, take_rows
from triptych.train.balance import Balance
from triptych.train.config import TrainConfig
from triptych.train.evaluate import Score, in_eval, predict
from triptych.train.folder import RunFolder
from triptych.train.freeze import freeze_
from triptych.train.losses import Objective
from triptych.train.missing import Incomplete
from triptych.train.precision import Arithmetic
from triptych.train.progress import Interruption, TrainProgress, Watch
from triptych.train.schedule import optimizer_for, rate, step_seed
from triptych.train.state import Counters, Record, RunState, identity_of

if TYPE_CHECKING:
    from triptych.model.multimodal import Multimodal

AfterStep = Callable[["Multimodal", float], None]
_SETTLE_EVERY = 16  # steps between reading losses back from an accelerator


@dataclass(frozen=True)
class Hooks:
    """What the caller plugs into a run."""

    objective: Objective
    augment: Augmentation | None
    progress: Watch | None
    after_step: AfterStep | None
    balance: Balance | None = None


class Loss(nn.Module):
    """Model and objective in one forward pass, which is what data parallelism synchronises.

    auxiliary_weight: of the losses that parts of the model add
    balance: which the objective asks; held here too, so that a checkpoint has what it remembers
    """

    def __init__(
        self, model: Multimodal, objective: Objective, auxiliary_weight: float, balance: Balance | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.auxiliary_weight = auxiliary_weight
        self.balance = balance

    def forward(self, batch: Batch) -> Tensor:
        """Loss of one batch: scalar."""
        loss = self.objective(self.model, batch)
        added = take_auxiliary(self.model)
        return loss + self.auxiliary_weight * torch.stack(added).sum() if added else loss


class Run:
    """Trains a copy of `model`.  schema: the inputs to read, at least those of the model"""

    def __init__(self, model: Multimodal, data: Dataset, config: TrainConfig, hooks: Hooks, *, schema: Schema) -> None:
        # "no": accelerate fixes its precision for the life of the process, so ours is `Arithmetic`
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
        cpu = not torch.cuda.is_available()
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)
        self.device: torch.device = self.accelerator.device
        self.data, self.config, self.hooks, self.schema = data, config, hooks, schema
        self.model = copy.deepcopy(model).to(self.device).train()
        self.fixed = freeze_(self.model, config.freeze)
        self.arithmetic = Arithmetic(config.precision, self.model, self.device)
        network = Loss(self.model, hooks.objective, config.auxiliary_weight, hooks.balance)
        average = copy.deepcopy(self.model) if config.average else None
        self.state = RunState(network, average, optimizer_for(network, config), {}, Counters())
        self.network: nn.Module = self.accelerator.prepare(network)
        self.droppers = [part for part in self.model.modules() if isinstance(part, DropTokens)]
        self.dropout = ModalityDropout.of(config, self.model.schema.names)
        self.incomplete = Incomplete.of(config, self.model.schema.names, len(data.train))
        self.generator = torch.Generator()
        self.epoch_steps, self.drop_last = _epoch(len(data.train), config.batch_size)
        self.steps = self.epoch_steps * config.epochs
        self.pending: list[Tensor] = []
        self.loss = math.nan
        self.validation_s = 0.0
        self.folder = RunFolder(None, writes=False)
        self.start_clock()

    def open(self, folder: RunFolder, *, resume: bool) -> None:
        """Keep checkpoints in `folder`, and go on from the one that is there."""
        self.folder = folder
        if folder.holds_run:
            folder.take_over(self.state, self.identity, resume=resume)
        self.start_clock()

    def start_clock(self) -> None:
        """Count the seconds of this process from now on."""
        self.started = self.saved = time.monotonic() - self.state.counters.elapsed_s

    def close(self) -> None:
        """Release what the run holds."""
        self.folder.close()
        self.accelerator.free_memory()

    @cached_property
    def identity(self) -> Record:
        """What a resumed run must agree on."""
        return identity_of(self.config, data=self.data.fingerprint, precision=self.arithmetic.dtype, steps=self.steps)

    # ---- one step

    def train(self, interruption: Interruption) -> None:
        """Step until the schedule, the clock or patience ends the run."""
        counters = self.state.counters
        while not counters.finished:
            epoch, done = divmod(counters.step, self.epoch_steps)
            for batch in islice(self._batches(epoch), done, None):
                self._step(batch)
                self._settle_up()
                if interruption.requested and not counters.finished:
                    self._save()
                    raise KeyboardInterrupt(
                        f"training stopped after step {counters.step} of {self.steps}: {self.folder.how_to_go_on()}"
                    )
                if counters.finished:
                    break

    def _batches(self, epoch: int) -> Iterator[Batch]:
        config = self.config
        return batches(
            self.data.train,
            self.schema,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=epoch,
            workers=config.workers,
            drop_last=self.drop_last,
        )

    def _step(self, batch: Batch) -> None:
        config, state = self.config, self.state
        lr = config.lr * rate(self.fraction(ahead=1), warmup=config.warmup, final=config.final_lr)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        self._drop_tokens()
        batch = self._prepared(batch)
        with self.arithmetic.active():
            loss = self.network(batch)
        self.accelerator.backward(loss)
        self._balance()
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), config.clip or math.inf)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.counters.step += 1
        self.pending.append(loss.detach() + 0 * norm)  # not finite if either is not
        if self.hooks.after_step is not None:
            self.hooks.after_step(self.model, self.fraction())
        if state.average is not None:
            blend_(state.average, self.model, min(config.average, state.counters.step / (state.counters.step + 9)))

    def _balance(self) -> None:
        """Let the balance change the gradients, in every process alike."""
        balance = self.hooks.balance
        if balance is None:
            return
        if self.accelerator.num_processes > 1:
            balance.agree_(lambda told: self.accelerator.reduce(told, reduction="mean"))
        self.generator.manual_seed(step_seed(self.config.seed, self.state.counters.step, 0, 2))
        balance.modulate_(self.model, self.generator)

    def _drop_tokens(self) -> None:
        """Leave tokens out until the last part of the run, which fits the network to what it will see."""
        share = self.config.token_dropout if self.fraction() < 1 - self.config.all_tokens else 0.0
        for part in self.droppers:
            part.share = share

    def _prepared(self, batch: Batch) -> Batch:
        """This process's share of the rows, augmented; all that is random depends on (seed, step, process) only."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        if processes > 1:
            batch = take_rows(batch, torch.arange(rank, len(batch), processes))
        self.generator.manual_seed(step_seed(self.config.seed, self.state.counters.step, rank, 0))
        torch.manual_seed(step_seed(self.config.seed, self.state.counters.step, rank, 1))
        batch = batch if self.incomplete is None else self.incomplete(batch)
        if self.hooks.augment is not None:
            batch = self.hooks.augment(batch, self.generator)
        if self.dropout is not None:
            batch = self.dropout(batch, self.generator)
        return batch.to(self.device)

    def _settle_up(self) -> None:
        """After a step: read losses, validate, save and tell, each when due."""
        counters, over = self.state.counters, self.fraction() >= 1
        if self.device.type == "cpu" or len(self.pending) >= _SETTLE_EVERY:
            self._read_losses()
        if over or counters.step % (self.epoch_steps * self.config.validate_every) == 0:
            self._validate()
        counters.finished |= over
        if counters.finished or time.monotonic() - self.saved >= self.config.checkpoint_every_s:
            self._save()
        if self.hooks.progress is not None:
            self.hooks.progress(self._event())

    def _read_losses(self) -> None:
        counters = self.state.counters
        first = counters.step - len(self.pending) + 1
        for step, loss in enumerate(torch.stack(self.pending).tolist() if self.pending else (), first):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss or its gradient is not finite at step {step}; lower lr (now {self.config.lr}), "
                    "raise warmup or use precision='float32', and check the data for infinite values"
                )
            self.loss = loss
            counters.loss_sum += loss
            counters.loss_steps += 1
        self.pending.clear()

    # ---- the clock

    def fraction(self, *, ahead: int = 0) -> float:
        """Share of the run that is over: by steps or by the clock, whichever is further."""
        by_steps = (self.state.counters.step + ahead) / self.steps
        if self.config.max_seconds is None:
            return by_steps
        usable = max(self.config.max_seconds - self.validation_s, 1e-3)
        return min(max(by_steps, self._agreed(self.elapsed_s() / usable)), 1.0)

    def elapsed_s(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return time.monotonic() - self.started

    def _agreed(self, value: float) -> float:
        """The main process's value, in every process."""
        if self.accelerator.num_processes == 1:
            return value
        return float(broadcast(torch.tensor(value, dtype=torch.float64, device=self.device)).item())

    # ---- validating, saving and telling

    def _validate(self) -> None:
        self._read_losses()
        counters, begun = self.state.counters, time.monotonic()
        candidate = self.model if self.state.average is None else self.state.average
        score = self._score(candidate)
        if score is None or counters.best is None or score > counters.best:
            counters.best, counters.stale = score, 0
            self.state.best = {name: t.detach().clone() for name, t in candidate.state_dict().items()}
        else:
            counters.stale += 1
            counters.finished = self.config.patience is not None and counters.stale >= self.config.patience
        self._show_balance()
        counters.last = score
        self.validation_s = time.monotonic() - begun
        self._record(score)

    def _score(self, candidate: Multimodal) -> Score | None:
        split, config = self.data.splits.get("validation"), self.config
        if split is None or not len(split):
            return None
        outputs = predict(candidate, split, batch_size=config.eval_batch_size, workers=config.workers)
        score = Score.of(outputs, np.asarray(split.targets), candidate.schema)
        return Score(self._agreed(score.rank), self._agreed(score.negative_loss))

    def _show_balance(self) -> None:
        """Show the validation rows to a balance that watches them."""
        balance, config = self.hooks.balance, self.config
        if balance is None or not balance.watches:
            return
        seen = batches(
            self.data.validation, self.model.schema, batch_size=config.eval_batch_size, seed=0, shuffle=False
        )
        with in_eval(self.model):
            balance.validated_(self.model, (batch.to(self.device) for batch in seen))

    def _record(self, score: Score | None) -> None:
        counters = self.state.counters
        record: Record = {
            "step": counters.step,
            "epoch": counters.step / self.epoch_steps,
            "elapsed_s": round(self.elapsed_s(), 3),
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "loss": counters.loss_sum / max(counters.loss_steps, 1),
            "quality": None if score is None else score.quality(self.model.schema),
            "validation_loss": None if score is None else score.loss,
        }
        counters.history.append(record)
        counters.loss_sum, counters.loss_steps = 0.0, 0
        self.folder.show(record)

    def _save(self) -> None:
        self._read_losses()
        self.state.counters.elapsed_s = self.elapsed_s()
        if self.folder.writes:
            self.folder.save(self.state, self.identity)
        self.saved = time.monotonic()

    def _event(self) -> TrainProgress:
        counters, schema = self.state.counters, self.model.schema
        return TrainProgress(
            step=counters.step,
            steps=self.steps,
            epoch=counters.step // self.epoch_steps,
            fraction=1.0 if counters.finished else self.fraction(),
            loss=self.loss,
            lr=self.state.optimizer.param_groups[0]["lr"],
            elapsed_s=self.elapsed_s(),
            quality=None if counters.last is None else counters.last.quality(schema),
            best=None if counters.best is None else counters.best.quality(schema),
        )


@torch.no_grad()
def blend_(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move `average` towards `model`: keep * average + (1 - keep) * model.  Buffers that count are copied."""
    for theirs, ours in zip(average.parameters(), model.parameters(), strict=True):
        theirs.lerp_(ours, 1 - keep)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.lerp_(buffer, 1 - keep) if buffer.is_floating_point() else copied.copy_(buffer)


def _epoch(rows: int, batch_size: int) -> tuple[int, bool]:
    """Steps of one epoch, and whether its incomplete last batch is left out."""
    if not rows:
        raise TrainingError("the training split has no rows")
    return max(rows // batch_size, 1), rows >= batch_size
