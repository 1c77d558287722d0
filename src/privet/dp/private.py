"""Private training of a model that stays the user's own: sample, take, clip, add noise, and keep the books."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from privet.accounting.bound import Bound
from privet.accounting.ledger import Ledger
from privet.checkpoints.random_states import global_states, set_global_states
from privet.dp.batches import Batch, DataSource, data_source
from privet.dp.books import NOT_PRIVATE, Books
from privet.dp.clipping import ClippingState
from privet.dp.diagnostics import Diagnostics
from privet.dp.guard import Guard
from privet.dp.keystream import KeyStream
from privet.dp.noise import Noise
from privet.dp.per_example.engine import Engine, PerExampleLoss
from privet.dp.physical import largest_batch
from privet.dp.plan import Plan
from privet.dp.probe import probe
from privet.dp.ranks import Ranks
from privet.dp.same_data import refuse_other_data
from privet.dp.same_weights import warn_of_other_weights
from privet.dp.sampling import PoissonSampler
from privet.dp.statement import Statement
from privet.dp.step import Release, Step
from privet.errors import ArgumentError, CheckpointError, LedgerError, PrivateTrainingError

__all__ = ["Private", "Spent", "TestRun"]


@dataclass(frozen=True)
class TestRun:
    """Makes a run repeatable, and so not private: who knows the seed can take the noise off again.

    Attributes:
        seed: of the sampling and of the noise.
        noise: False leaves the noise out.
    """

    __test__ = False  # no test case, whatever its name

    seed: int
    noise: bool = True


@dataclass(frozen=True)
class Spent:
    """What the ledger says was spent, all its runs together.

    Attributes:
        epsilon: the bracket around epsilon at ``delta``; the upper end counts.
        delta: of the plan.
        steps: of this run's plan that were taken.
        total_steps: of the plan.
        test_run: whether the run is seeded, so that it protects nobody.
    """

    epsilon: Bound
    delta: float
    steps: int
    total_steps: int
    test_run: bool = False

    def __str__(self) -> str:
        stamp = f"{NOT_PRIVATE}; " if self.test_run else ""
        return f"{stamp}epsilon {self.epsilon} at delta {self.delta:g}, {self.steps:,} of {self.total_steps:,} steps"


class Private:
    """A model in private training; made by :func:`make_private`.

    The model and the optimizer stay the user's own: :meth:`backward` puts a private gradient into ``.grad``, and
    nothing else changes.

    Attributes:
        plan: what is done.
        groups: of trainable parameters, by name; each is clipped on its own.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        books: Books | None,
        ranks: Ranks,
        *,
        max_physical_batch: int | None,
        test_run: TestRun | None,
        diagnostics: bool,
    ) -> None:
        """Use :func:`make_private`."""
        self._engine = engine
        self.plan = plan
        self.groups = tuple(
            tuple(slot.name for slot in engine.slots if slot.group == group) for group in range(len(engine.ranges))
        )
        self._step = 0
        self._kept_books, self._ranks = books, ranks  # the first rank alone keeps books
        self._clipping = plan.clipping.initial(len(self._engine.ranges))
        self._flat = self._engine.flat()  # what was released last; .grad lies in it
        # Of several ranks, what the others have in their buffers before the sum is not private.
        self._sum = self._flat if ranks.size == 1 else self._engine.flat()
        self._guard = Guard(engine.model)
        self._max_physical_batch = max_physical_batch
        self._checked: set[object] = set()  # the code of losses that were compared with single examples
        self._test_run = test_run
        self._noise: Noise | None = None
        if ranks.rank == 0 and (test_run is None or test_run.noise):
            self._noise = Noise(self._stream("noise"))
        self._versions: list[int] = []
        self._outstanding: tuple[Batch, Tensor] | None = None  # drawn and not used, and the records that it holds
        self._unused: Tensor | None = None  # of a batch that was left; the next loop gives the same records
        self._closed = False
        self._diagnostics = Diagnostics() if diagnostics else None
        self._closes_ledger = False

    @property
    def model(self) -> nn.Module:
        """The model in training, the user's own."""
        return self._engine.model

    @property
    def ledger(self) -> Ledger:
        """What was spent.

        Raises:
            PrivateTrainingError: this is one of several ranks, and not the first.
        """
        return self._books.ledger

    @property
    def _books(self) -> Books:
        if self._kept_books is None:
            raise PrivateTrainingError(
                "of several ranks the first alone has the ledger, and what follows from it: spent(), statement() and "
                "state_dict(). Ask there: if torch.distributed.get_rank() == 0."
            )
        return self._kept_books

    @property
    def closed(self) -> bool:
        """Whether the model was let go: what changes it from then on is not private."""
        return self._closed

    @property
    def step(self) -> int:
        """How many steps of the plan were taken."""
        return self._step

    @property
    def max_grad_norms(self) -> tuple[float, ...]:
        """What the next step clips each group to; it depends on released values only."""
        return self._clipping.max_grad_norms

    @property
    def test_run(self) -> bool:
        """Whether the run is seeded, so that it protects nobody."""
        return self._test_run is not None

    @property
    def diagnostics(self) -> Diagnostics:
        """What the last step saw of the data: **not covered by epsilon**. For debugging; never publish it.

        Raises:
            PrivateTrainingError: it was not asked for.
        """
        if self._diagnostics is None:
            raise PrivateTrainingError(
                "losses, batch sizes and how many examples were clipped are not covered by epsilon, so they are not "
                "kept; make_private(..., diagnostics=True) keeps those of the last step, for debugging."
            )
        return self._diagnostics

    def batches(
        self,
        dataset: object,
        *,
        device: torch.device | str | None = None,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> Iterator[Batch]:
        """Logical batches, each record in each of them with probability B / N, until the plan or the budget ends.

        Every batch goes to :meth:`backward` before the next one is drawn; an empty one, too. Leaving the loop gives
        back what was reserved and not drawn; asking again goes on where it ended, with the same records where a batch
        was left unused: whoever could draw anew could choose.

        Args:
            dataset: see :func:`privet.dp.batches.data_source`; it has as many records as the plan says.
            device: where the data go; None for the model's device.
            workers: processes that read a map-style data set.
            collate: makes a piece of a list of records; row i may depend on record i alone.

        Raises:
            ArgumentError: the data set cannot be sampled, or has another size than the plan.
            BudgetExceededError: not one more step fits the budget.
            PrivateTrainingError: a batch was not used; all steps are done; this was closed; or, while a batch is read,
                ``collate`` lets a row depend on other records.
            LedgerError: the ledger cannot be used.
        """
        if self._closed:
            raise PrivateTrainingError("this training was closed; go on with make_private(..., resume=state).")
        if self.step >= self.plan.total_steps:
            raise PrivateTrainingError(
                f"all {self.plan.total_steps:,} steps of the plan are done: one loop over private.batches is the whole "
                "plan, not an epoch. To train on, make another plan and another make_private on the same ledger."
            )
        source = self._ranks.each("the beginning of a loop", lambda: self._source(dataset, device, workers, collate))
        stream = self._shared_stream()
        refuse_other_data(
            self._ranks, lambda: data_source(dataset, device="cpu", workers=0, collate=collate), self._flat.device
        )
        return self._draw(PoissonSampler(source.size, self.plan.sampling, stream), source.batch)

    def _source(self, dataset: object, device: Any, workers: int, collate: Any) -> DataSource:
        target = self._flat.device if device is None else device
        source = data_source(dataset, device=target, workers=workers, collate=collate)
        if source.size != self.plan.dataset_size:
            raise ArgumentError(
                "dataset",
                f"{source.size:,} records",
                f"the plan's dataset_size of {self.plan.dataset_size:,}",
                "The sampling rate, and with it epsilon, is made of that number; plan with the number there is.",
            )
        return source

    def _draw(self, sampler: PoissonSampler, read: Callable[[Tensor, int | None], Batch]) -> Iterator[Batch]:
        try:
            first = self.step
            while True:
                if self._outstanding is not None:
                    error = PrivateTrainingError(
                        "a batch was drawn and not given to private.backward. Choosing among batches (of two loops, "
                        "say) would depend on the data; give every batch to it, also an empty one, and leave the loop "
                        "to stop."
                    )
                    self._ranks.all_well(self._here(), error)  # where the other ranks are, if they did
                if self.step == first + 1:
                    self._compare_weights()
                if self.step >= self._last_allowed(first):
                    break
                indices = sampler.draw() if self._unused is None else self._unused
                batch = read(self._share(indices), self._max_physical_batch)
                self._outstanding, self._unused = (batch, indices), None
                yield batch
        except BaseException:  # leaving the loop, too: nobody would hear an error there, and the ledger stays unusable
            self._settle(quietly=True)
            raise
        self._ranks.each("the end of the loop", self._settle)
        self._compare_weights()

    def _compare_weights(self) -> None:
        warn_of_other_weights(self._ranks, (slot.parameter for slot in self._engine.slots), self.step)

    def _last_allowed(self, first: int) -> int:
        """Where another run on the same ledger took the rest of the budget meanwhile, this one ends as planned."""

        def allowed() -> int:
            if self.step > first and self._books.is_exhausted(self.step):
                return self.step
            last = self._books.last_allowed(self.step)
            if self.step == first and last < self.plan.total_steps:
                warnings.warn(
                    f"{last:,} of the plan's {self.plan.total_steps:,} steps fit its budget, since the ledger holds "
                    "what other runs spent or reserved, and all of it adds up; training ends there.",
                    stacklevel=5,  # the user's loop
                )
            return last

        return int(self._ranks.of_first(f"what follows step {self.step}", allowed))

    def _here(self) -> str:
        """Where a rank is, and what it clips to: the noise is for the norms of rank 0."""
        return f"step {self.step}, clipped to {self.max_grad_norms}"

    def backward(self, per_example_loss: PerExampleLoss, batch: Batch) -> Release:
        r"""One private step: replaces ``.grad`` of every trainable parameter.

        .. math:: \tilde g = \frac{1}{B} \Big( \sum_i \min(1, C / \lVert g_i \rVert) g_i
            + \mathcal N(0, \sigma^2 C^2 I) \Big)

        On an empty batch the loss is not called, and the gradient is noise alone. ``.grad`` lies in one buffer that the
        next step overwrites: clone what is to be kept.

        Args:
            per_example_loss: from collated data of b examples to their losses (b,). It may be called several times,
                each time on a part of the batch.
            batch: from :meth:`batches`.

        Returns:
            What the step let out: its event and its clip norms.

        Raises:
            PrivateTrainingError: the batch is not the one that :meth:`batches` gave last; the losses are not one for
                each example; a gradient would go past the step; the model was changed. After any error, of the loss
                as well, no parameter has a gradient, and the next batch holds the same records. Where noise was drawn
                already, the step stays on the ledger.
            UnsupportedLayerError: a layer was used in a way that is not known.
            BudgetExceededError: the step does not fit the budget.
            LedgerError: the step could not be recorded; nothing was drawn.
        """
        try:
            if not callable(per_example_loss):
                raise ArgumentError(
                    "per_example_loss",
                    type(per_example_loss).__name__,
                    "a function from the batch's data to the losses (B,)",
                    'As in lambda data: F.cross_entropy(model(data[0]), data[1], reduction="none").',
                )
            if self._outstanding is None or batch is not self._outstanding[0]:
                raise PrivateTrainingError(
                    "backward takes the batch that private.batches(dataset) gave last, once. Batches of any other "
                    "sampler (shuffled, weighted, repeating) are not what the plan accounts for."
                )
            self._guard.check_model()
            self._warn_of_still_weights()
        except BaseException as error:
            self._ranks.all_well(self._here(), error)
            raise
        outstanding, self._outstanding = self._outstanding, None
        try:
            release = self._run(per_example_loss, batch)
            for slot in self._engine.slots:
                slot.parameter.grad = slot.view(self._flat)
        except BaseException:
            for slot in self._engine.slots:
                slot.parameter.grad = None  # half a step, or the one before
            self._outstanding = outstanding  # the same records again: whether it fails may depend on them
            self._settle(quietly=True)
            raise
        finally:
            batch.spent = True
        self._versions = self._now()
        self._clipping = release.clipping
        self._step += 1
        return release

    def _now(self) -> list[int]:
        return [slot.parameter._version for slot in self._engine.slots]

    def _warn_of_still_weights(self) -> None:
        """No guarantee is at stake, but a budget is."""
        if self._versions == self._now():
            warnings.warn(
                "no weight changed since the last private step: the budget is being spent and nothing is learned. Is "
                "it this model's optimizer, and does optimizer.step() come after backward, without zero_grad between?",
                stacklevel=3,
            )

    def _run(self, per_example_loss: PerExampleLoss, batch: Batch) -> Release:
        step = self._ranks.each(self._here(), lambda: self._local(per_example_loss, batch))
        release = self._ranks.each(f"the sum of {self._here()}", step.finish)
        if self._sum is not self._flat:
            self._flat.copy_(self._sum)  # seen only now that all were in it
        return release

    def _local(self, per_example_loss: PerExampleLoss, batch: Batch) -> Step:
        """What this rank adds to the step."""
        step: Step | None = None
        if self._diagnostics is not None:
            self._diagnostics.start(batch.size)
        with self._guard.no_other_gradients():
            if not batch.empty and _code(per_example_loss) not in self._checked:
                self._check(per_example_loss, batch)
            for data, size in batch.parts(self._max_physical_batch):
                gradients = self._engine.take(per_example_loss, data, size)
                step = step or self._begin()  # after the user's code ran once: most errors cost nothing
                factors = step.add(gradients)
                if self._diagnostics is not None:
                    self._diagnostics.add(gradients.squared_norms, factors, gradients.losses)
        return step or self._begin()

    def _begin(self) -> Step:
        if self._kept_books is not None:
            self._kept_books.before_noise(self.step)
        return Step(self.plan, self.step, self._clipping, self._engine.ranges, self._sum, self._noise, self._ranks)

    def check(self, per_example_loss: PerExampleLoss, data: Any, size: int) -> None:
        """Compare the engine with single examples now, instead of on the first batch; nothing is released.

        Raises:
            PrivateTrainingError: they differ; says where and what to do.
            UnsupportedLayerError: a layer was used in a way that is not known.
        """
        probe(self._engine, per_example_loss, data, size)
        if size > 1:  # copies of one example cannot show what examples do to each other
            self._checked.add(_code(per_example_loss))

    def _check(self, per_example_loss: PerExampleLoss, batch: Batch) -> None:
        data, size = next(iter(batch.parts(min(batch.size, 8))))
        states = global_states(self._flat.device)
        try:
            self.check(per_example_loss, data, size)
            if self._max_physical_batch is None:
                self._max_physical_batch = largest_batch(self._engine, per_example_loss, data, size)
        finally:  # a resumed run checks once more than one that was never stopped, and must draw the same dropout
            set_global_states(states, self._flat.device)

    def spent(self) -> Spent:
        """What the ledger says was spent, all its runs together; what is reserved counts."""
        epsilon = self.plan.accountant.epsilon(self.ledger.events(), self.plan.delta, self.plan.relation)
        return Spent(epsilon, self.plan.delta, self.step, self.plan.total_steps, self.test_run)

    def statement(self, *, stopped_without_data: bool = False) -> Statement:
        """What may be said about the trained model, and what not.

        Args:
            stopped_without_data: where fewer steps were taken than planned: True if nothing private had a part in
                that decision (a look at the clock had none; a validation loss on private records had). Then epsilon is
                what the ledger says; otherwise it is that of the whole plan. A stop by the budget had none.
        """
        plan, spent = self.plan, self.ledger.events()
        stopped_by_budget = self.step < plan.total_steps and self._books.is_exhausted(self.step)
        whole = self.step < plan.total_steps and not (stopped_without_data or stopped_by_budget)
        counted = [*spent, *plan.events(self.step)] if whole else spent
        return Statement(
            epsilon=plan.accountant.epsilon(counted, plan.delta, plan.relation),
            delta=plan.delta,
            steps=self.step,
            whole_plan=whole,
            runs=len(self.ledger.contents().runs),
            test_run=self.test_run,
            ledger_head=self.ledger.head,
            accountant=type(plan.accountant).__name__,
            plan=plan.describe(),
            groups=len(self.groups),
            counts=len(plan.clipping.count_noise_stds(len(self.groups), plan.expected_batch_size)),
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the model and the optimizer: plain data. Keys and noise are never in it."""
        return {
            "version": 1,
            "plan": self.plan.digest,
            "step": self.step,
            "clipping": self._clipping.to_json(),
            "run": self._books.run.id,
            "ledger_head": self.ledger.head,
            "test_run": self.test_run,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made; only from :func:`make_private`, which checks it and the ledger first."""
        clipping = ClippingState.from_json(state["clipping"])
        if len(clipping.max_grad_norms) != len(self._engine.ranges):
            raise CheckpointError(
                f"the checkpoint has {len(clipping.max_grad_norms)} clip norms, the model {len(self._engine.ranges)} "
                "groups of parameters; it belongs to another model."
            )
        self._clipping, self._step = clipping, int(state["step"])

    def close(self) -> None:
        """Settle the books, let go of the ledger where it was opened here, and of the model. Closing again is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            self._settle()
        finally:
            self._guard.remove()
            self._ranks.close()
            if self._closes_ledger and self._kept_books is not None:
                self._kept_books.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self, quietly: bool = False) -> None:
        """Where another error is on its way, one of the ledger must not hide it: what is reserved stays spent."""
        if self._outstanding is not None:
            self._unused = self._outstanding[1]
        self._outstanding = None
        try:
            if self._kept_books is not None:
                self._kept_books.settle()
        except LedgerError:
            if not quietly:
                raise

    def _stream(self, purpose: str) -> KeyStream:
        if self._test_run is None:
            return KeyStream.secret()
        # another position after every resume: noise is never drawn twice
        return KeyStream.seeded(self._test_run.seed, f"{purpose} {self._books.run.id}", self._books.run.reserved)

    def _shared_stream(self) -> KeyStream:
        """Where samples come from: all ranks draw the same, and each takes its share."""
        if self._ranks.size == 1:
            return self._stream("sampling")
        if self._test_run is None:
            key = self._ranks.of_first("the sample's key", lambda: os.urandom(32).hex())
            return KeyStream(bytes.fromhex(key), is_secret=True)
        run, reserved = self._ranks.of_first(
            "the sample's seed", lambda: [self._books.run.id, self._books.run.reserved]
        )
        return KeyStream.seeded(self._test_run.seed, f"sampling {run}", reserved)

    def _share(self, indices: Tensor) -> Tensor:
        """This rank's records of a sample: no record is in two shares, however the ranks came to it."""
        if self._ranks.size == 1:
            return indices
        self._ranks.same("the sample", indices.numpy().tobytes())  # of one left unused, too
        return indices[self._ranks.rank :: self._ranks.size].clone()


def _code(per_example_loss: PerExampleLoss) -> object:
    """What a loss runs: the same for a lambda or a partial that is made anew for every step."""
    function: Any = per_example_loss
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", function)
