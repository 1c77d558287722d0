"""Several processes are one private training: the same sum, one noise, one ledger."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.dp import several

from privet import dp
from privet.accounting import Ledger
from privet.dp.clipping import ClippingState, estimated_fractions
from privet.dp.ranks import Alone, ranks_here
from privet.errors import PrivateTrainingError

ROOT = Path(__file__).parents[2]
HARMLESS = (
    "without_noise",
    "adaptive",
    "adaptive_with_noise",
    "noise_alone",
    "seeded_in_one",
    "other_seeds",
    "other_plans",
    "other_models",
    "other_data",
    "a_step_that_fails",
    "who_has_the_ledger",
    "fit",
    "secret_noise",
    "secret_noise_again",
    "what_is_seen_in_a_step",
    "resumed",
    "resumed_in_one",
    "other_ledgers",
    "groups_of_one",
    "other_size",
    "changed_in_one",
    "at_another_place",
    "other_arrays",
    "augmented",
    "augmented_by_workers",
    "augmented_in_another_order",
    "augmented_by_its_own_generator",
    "augmented_by_its_own_generator_and_numbered",
    "a_layer_that_is_not_known",
    "a_gradient_of_what_is_frozen",
    "a_plan_that_is_none",
    "float16",
    "still_weights",
    "a_record_that_cannot_be_read",
    "open_ledger",
    "no_ledger",
    "how_long_ranks_wait",
    "seeded_with_noise",
    "where_ranks_talk",
    "a_wrapper_in_the_loss",
    "other_weights",
    "closed",
    "one_that_leaves",
    "the_key_of_the_sample",
    "no_model",
    "no_group",
    "an_expanded_buffer",
    "a_ledger_that_cannot_be_settled",
    "what_the_model_holds",
    "models_of_one_shape",
    "a_budget_that_ends",
    "a_budget_that_ends_is_an_error",
    "clip_norms_that_differ_in_a_digit",
    "clip_norms_that_differ_without_counts",
    "a_strategy_that_fails",
    "other_records_at_the_end",
    "own_sample",  # last: it changes the class
)
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="no gloo")


def run(folder: Path, *names: str, size: int = 2) -> dict[str, list[dict[str, Any]]]:
    """What the ranks saw of each scenario; an empty dictionary for one that died."""
    command = [sys.executable, "-m", "tests.dp.several", str(folder), *names]
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(size),
    }
    ranks = [subprocess.Popen(command, env=here | {"RANK": str(rank)}, cwd=ROOT) for rank in range(size)]
    try:
        for one in ranks:
            one.wait(timeout=400)
    finally:
        for one in ranks:
            one.kill()
    return {
        name: [
            json.loads(path.read_text()) if path.exists() else {}
            for path in (folder / name / f"{rank}.json" for rank in range(size))
        ]
        for name in names
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return run(tmp_path_factory.mktemp("ranks"), *HARMLESS)


def close(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["without_noise", "adaptive", "seeded_with_noise"])
def test_two_are_one(seen: Any, name: str, tmp_path: Path) -> None:
    first, second = seen[name]
    assert first["weights"] == second["weights"]  # bit for bit
    assert first["norms"] == second["norms"]
    alone = getattr(several, name)(tmp_path)
    close(first["weights"], alone["weights"])
    close([first["norms"]], [alone["norms"]])
    if name == "without_noise":
        assert first["empty"]
        assert second["empty"] > alone["empty"]


def test_released_clip_norms_are_the_same_in_all_ranks(seen: Any) -> None:
    first, second = seen["adaptive_with_noise"]
    assert first["norms"] == second["norms"]
    assert first["weights"] == second["weights"]
    assert len(set(first["norms"])) > 1


def law_one_noise(stds: list[float]) -> None:
    """Of 30,000 numbers the deviation is known to 4.5 standard errors; three steps: 2 in 100,000 false alarms."""
    expected = 2.0 * 0.5 / 4.0
    for std in stds:
        assert abs(std - expected) < 4.5 * expected / math.sqrt(2 * 30_000), (std, expected)


def test_the_noise_is_drawn_once(seen: Any, tmp_path: Path) -> None:
    for one in seen["noise_alone"]:
        law_one_noise(one["stds"])
    twice = run(tmp_path, "noise_on_every_rank")["noise_on_every_rank"]
    with pytest.raises(AssertionError):
        law_one_noise(twice[0]["stds"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("seeded_in_one", "test_run of rank 1 is another"),
        ("other_seeds", "test_run of rank 1 is another"),
        ("other_plans", "the plan of rank 1 is another"),
        ("other_models", "the model of rank 1 is another"),
        ("other_data", "the data set of rank 1 is another"),
        ("own_sample", "the sample of rank 1 is another"),
        ("fit", "one process"),
        ("resumed_in_one", "resume of rank 1 is another"),
        ("other_ledgers", "the ledger of rank 1 is another"),
        ("other_records_at_the_end", "the data set of rank 1 is another"),
        ("other_arrays", "the data set of rank 1 is another"),
        ("augmented_in_another_order", "the data set of rank 1 is another"),
        ("augmented_by_its_own_generator", "tells few records apart"),
        ("at_another_place", "at another place of the training"),
        ("clip_norms_that_differ_without_counts", "at another place of the training"),
    ],
)
def test_ranks_that_do_not_belong_together_are_refused(seen: Any, name: str, said: str) -> None:
    for one in seen[name]:
        assert said in one.get("said", "")


def test_where_one_fails_no_one_steps_and_all_go_on(seen: Any) -> None:
    first, second = seen["a_step_that_fails"]
    assert first["weights"] == second["weights"]
    assert ["rank 1 could not take part in step 3" in one for one in first["said"]] == [True]
    assert second["said"] == ["ValueError: planted"]
    assert first["events"] == 13  # the step that failed was reserved, and stays


def test_a_secret_run_has_its_noise_on_gradients_and_on_counts(seen: Any) -> None:
    """Gradients to 4.5 standard errors of 30,000 numbers. All of them are zero, so that each count is half the sample
    beside its noise of 1: the clip norm moves by that much from what the sample alone would make of it."""
    plan = several.counting()
    wanted = plan.gradient_noise_multiplier(0, 1) / 20
    for name in ("secret_noise", "secret_noise_again"):
        first, second = seen[name]
        assert first["norms"] == second["norms"]
        for std in (*first["stds"], *second["stds"]):
            assert abs(std / wanted - 1.0) < 4.5 / math.sqrt(2 * 30_000)
        before = [0.5, *first["norms"]]
        moved = []
        for step, (mine, other) in enumerate(zip(first["sizes"], second["sizes"], strict=True)):
            fractions = estimated_fractions([(mine + other) / 2], [0.0], 20)
            quiet = plan.clipping.update(ClippingState((before[step],)), fractions).max_grad_norms[0]
            moved.append(abs(math.log(before[step + 1] / quiet)))
        assert 1e-4 < max(moved) < 6.0 / 20
    assert seen["secret_noise"][0]["stds"] != seen["secret_noise_again"][0]["stds"]


def test_two_runs_draw_other_samples(seen: Any) -> None:
    """Of eight samples of 40 records at a half: of one size by chance in one of some ten million pairs of runs."""
    sizes = [[tuple(one["sizes"]) for one in seen[name]] for name in ("secret_noise", "secret_noise_again")]
    assert sizes[0] != sizes[1]


def test_the_key_of_the_sample_is_whole_and_made_once(seen: Any) -> None:
    assert seen["the_key_of_the_sample"] == [{"most": 32}, {"most": 0}]


def test_no_rank_sees_a_sum_without_noise(seen: Any) -> None:
    for one in seen["what_is_seen_in_a_step"]:
        assert one["seen"]
        assert all(one["seen"])
        assert one["kept"]


def test_a_resume_of_all_ranks_goes_on(seen: Any) -> None:
    first, second = seen["resumed"]
    assert first["steps"] == second["steps"] == 12
    assert first["norms"] == second["norms"]


def test_a_group_is_its_own_ranks(seen: Any) -> None:
    for one in seen["groups_of_one"]:
        assert one["steps"] == 0
        assert "not in process_group" in one["said"]


def test_augmentation_is_no_hindrance(seen: Any) -> None:
    assert seen["augmented"] == [{}, {}]
    assert seen["augmented_by_workers"] == [{}, {}]
    assert seen["augmented_by_its_own_generator_and_numbered"] == [{}, {}]


def test_mistakes_of_all_ranks_are_told(seen: Any) -> None:
    for one in seen["no_group"]:
        assert one["said"].startswith("ArgumentError: process_group = 'list'")
    for one in seen["an_expanded_buffer"]:
        assert "the numbers of 'scale' lie in one place" in one["said"]


def test_mistakes_of_one_rank_are_told_to_the_other(seen: Any) -> None:
    first, second = seen["other_size"]
    assert first["said"].startswith("PrivateTrainingError: rank 1 could not take part in the beginning of a loop")
    assert second["said"].startswith("ArgumentError: dataset = '39 records'")
    first, second = seen["changed_in_one"]
    assert "rank 1 could not take part in step 2" in first["said"]
    assert "the model was changed" in second["said"]


@pytest.mark.parametrize(
    ("name", "rank", "where", "own"),
    [
        ("a_layer_that_is_not_known", 1, "make_private", "UnsupportedLayerError: "),
        ("a_gradient_of_what_is_frozen", 1, "the beginning", "PrivateTrainingError: frozen parameter"),
        ("a_plan_that_is_none", 0, "make_private", "ArgumentError: plan"),
        ("no_ledger", 0, "make_private", "ArgumentError: ledger"),
        ("no_model", 0, "make_private", "ArgumentError: model = 'generator'"),
        ("a_ledger_that_cannot_be_settled", 0, "the end of the loop", "LedgerError: planted"),
        ("float16", 1, "step 2", "PrivateTrainingError: float16 autocast"),
        ("still_weights", 1, "step 1", "UserWarning: no weight changed"),
        ("a_record_that_cannot_be_read", 1, "step 2", "OSError: planted"),
    ],
)
def test_what_fails_in_one_rank_lets_no_other_wait(seen: Any, name: str, rank: int, where: str, own: str) -> None:
    mine, other = seen[name][rank]["said"], seen[name][1 - rank]["said"]
    assert mine.startswith(own)
    assert other.startswith(f"PrivateTrainingError: rank {rank} could not take part in {where}")


def test_the_ledger_may_be_open_in_the_first_alone(seen: Any) -> None:
    assert seen["open_ledger"] == [{"steps": 12}, {"steps": 12}]


def test_ranks_wait_as_long_as_the_group_that_they_are_of(seen: Any) -> None:
    assert seen["how_long_ranks_wait"] == [{"seconds": 100.0}] * 2


def test_a_training_that_is_closed_leaves_nothing_open(seen: Any) -> None:
    assert all(one["more"] <= 0 for one in seen["where_ranks_talk"])  # fewer where older ones are collected
    for one in seen["closed"]:
        assert one["said"].startswith("PrivateTrainingError: this training was closed")
        assert one["again"].startswith("PrivateTrainingError: this training was closed")


def test_one_that_leaves_wakes_the_others(seen: Any) -> None:
    """Else both wait until the group's timeout, and the barrier fails."""
    first, second = seen["one_that_leaves"]
    assert first == {}
    assert "cannot be reached. One of them may have ended, or failed, or left the loop earlier" in second["said"]


def test_processes_of_other_numbers_of_groups_meet(tmp_path: Path) -> None:
    found = run(tmp_path, "groups_of_some", size=3)["groups_of_some"]
    assert found == [{"steps": [12, 12, 12]}, {"steps": [12, 12, 12]}, {"steps": [12]}]


def test_a_wrapper_is_left_out(seen: Any) -> None:
    for one in seen["a_wrapper_in_the_loss"]:
        assert one["said"].startswith("PrivateTrainingError: DistributedDataParallel was called in the loss")
        assert "and call that one in the loss" in one["given"]


def test_other_weights_are_told(seen: Any) -> None:
    for one in seen["other_weights"]:
        assert one["rate"] == [
            "after step 1 rank 1 has other weights th",
            "after step 12 rank 1 has other weights t",
        ]
        assert one["last"] == ["after step 12 rank 1 has other weights t"]


def test_processes_of_torchrun_without_a_group_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert isinstance(ranks_here(torch.device("cpu")), Alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PrivateTrainingError, match=r"init_process_group before make_private"):
        ranks_here(torch.device("cpu"))


def test_what_the_model_holds_is_that_of_the_first(seen: Any) -> None:
    first, second = seen["what_the_model_holds"]
    assert second["before"] != first["before"]
    assert first["after"] == second["after"] == first["before"]


def test_models_of_one_shape_can_be_others(seen: Any) -> None:
    for one in seen["models_of_one_shape"]:
        assert set(one) == {"type", "names", "frozen", "order"}
        assert all("the model of rank 1 is another" in found["said"] for found in one.values())


def test_a_budget_ends_for_all(seen: Any) -> None:
    first, second = seen["a_budget_that_ends"]
    assert 0 < first["steps"] == second["steps"] < 12
    assert (first["said"], second["said"]) == (["several.py"], [])
    for one, begun in zip(seen["a_budget_that_ends_is_an_error"], ("UserWarning: ", "PrivateTraining"), strict=True):
        assert one["said"].startswith(begun)
        assert "fit its budget" in one["said"]


def test_clip_norms_are_those_of_the_first(seen: Any) -> None:
    first, second = seen["clip_norms_that_differ_in_a_digit"]
    assert first["norms"] == second["norms"]
    assert first["weights"] == second["weights"]
    assert len(first["norms"]) == 12


def test_what_fails_after_the_sum_lets_no_other_wait(seen: Any) -> None:
    first, second = seen["a_strategy_that_fails"]
    assert first["0"] == "ValueError: planted"
    assert second["0"].startswith("PrivateTrainingError: rank 0: planted")
    assert first["1"].startswith("PrivateTrainingError: rank 1 could not take part in the sum of step 2")
    assert second["1"] == "ValueError: planted"


def test_three_are_one_too(tmp_path: Path) -> None:
    found = run(tmp_path, "without_noise", "noise_alone", "other_data", size=3)
    alone = several.without_noise(tmp_path)
    for one in found["without_noise"]:
        assert one["weights"] == found["without_noise"][0]["weights"]
        close(one["weights"], alone["weights"])
    for one in found["noise_alone"]:
        law_one_noise(one["stds"])
    for one in found["other_data"]:
        assert "the data set of rank 1, 2 is another" in one["said"]


def test_the_ledger_is_with_the_first(seen: Any) -> None:
    first, second = seen["who_has_the_ledger"]
    assert first["said"] == [""] * 4
    assert all("the first alone has the ledger" in said for said in second["said"])


def test_a_rank_that_is_killed_loses_no_budget(tmp_path: Path) -> None:
    first, second = run(tmp_path, "killed")["killed"]
    assert (first["steps"], second) == (3, {})
    assert "cannot be reached" in first["said"]
    with Ledger.open(tmp_path / "killed" / "run.ledger") as ledger:
        assert sum(event.count for event in ledger.events()) == 4


def test_a_rank_that_skips_an_empty_batch_does_not_go_on_silently(tmp_path: Path) -> None:
    first, second = run(tmp_path, "skipped_when_empty")["skipped_when_empty"]
    assert "drawn and not given to private.backward" in second["said"]
    assert "rank 1 could not take part" in first["said"]


def test_one_process_is_alone() -> None:
    assert isinstance(ranks_here(torch.device("cpu")), Alone)
    assert isinstance(dp.TestRun(seed=0), dp.TestRun)
