"""Figures that stay on the device: the newest of each in a row, none that no step had, all in one transfer."""

from __future__ import annotations

import torch

from lightning_modules.figures import Sometimes, by_group, levels, merged, read, sometimes


def test_a_row_holds_the_newest_value_of_each_figure() -> None:
    row = merged({}, {"loss": torch.tensor(2.0), "rate": 0.5, **levels("a", torch.tensor([1.0, 3.0]),
                                                                         torch.tensor([0.1, 0.2]))})
    row = merged(row, {"loss": torch.tensor(1.5), **levels("a", torch.tensor([5.0, 7.0]), torch.tensor([0.2, 0.9]))})
    assert read(row) == {"loss": 1.5, "rate": 0.5, "a_t0": 5.0, "a_t3": 7.0}


def test_figures_of_a_checkpoint_are_numbers_and_go_on() -> None:
    kept = read(merged({}, levels("a", torch.tensor([1.0]), torch.tensor([0.1]))))
    assert kept == {"a_t0": 1.0}
    assert read(merged(kept, levels("a", torch.tensor([4.0]), torch.tensor([0.9])))) == {"a_t0": 1.0, "a_t3": 4.0}
    assert read({}) == {}


def test_a_loss_that_is_not_finite_is_told_where_it_is_and_spoils_no_other() -> None:
    found = read(merged({}, levels("a", torch.tensor([float("nan"), 2.0]), torch.tensor([0.1, 0.9]))))
    assert found["a_t3"] == 2.0 and found["a_t0"] != found["a_t0"] and len(found) == 2


def test_sets_of_a_mixture_are_told_apart() -> None:
    found = read(by_group("a", torch.tensor([1.0, 3.0, 8.0]), ["grid", "grid", "puppet"]))
    assert found == {"a_in_grid": 2.0, "a_in_puppet": 8.0} and by_group("a", torch.ones(2), []) == {}


def test_samples_without_the_loss_count_nowhere() -> None:
    """A set, or a noise level, in which no sample has it has no figure; one that had one before keeps it."""
    loss, sigma, has = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([0.1, 0.1, 0.1]), torch.tensor([True, True, False])
    groups = ["recorded", "recorded", "again"]
    figures = {"a": sometimes(loss, has), **by_group("a", loss, groups, has), **levels("a", loss, sigma, has)}
    row = merged({}, figures)
    assert read(row) == {"a": 2.0, "a_in_recorded": 2.0, "a_t0": 2.0}
    none = torch.zeros(3, dtype=torch.bool)
    later = {"a": sometimes(loss, none), **by_group("a", loss, groups, none), **levels("a", loss, sigma, none)}
    assert read(merged(row, later)) == read(row) and read(merged({}, later)) == {}


def test_there_is_kept_over_a_step_without() -> None:
    there, not_there = torch.tensor(True), torch.tensor(False)
    found = Sometimes(torch.tensor(9.0), not_there).over(Sometimes(torch.tensor(3.0), there))
    assert read({"x": found}) == {"x": 3.0}
