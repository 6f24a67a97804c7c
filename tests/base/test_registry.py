"""Registries: typed names with lazy targets, collisions refused, the nearest name on a miss."""

from __future__ import annotations

import sys

import pytest

from harness.base.errors import BadInputError, nearest
from harness.base.registry import Registry


def test_an_entry_is_found_by_its_name():
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    assert registry.get("one") == 1
    assert "one" in registry
    assert "two" not in registry


def test_names_are_listed_sorted():
    registry: Registry[int] = Registry("number")
    for name in ("b", "c", "a"):
        registry.add(name, 1)
    assert list(registry) == ["a", "b", "c"]


def test_a_decorator_registers_and_hands_back():
    registry: Registry[object] = Registry("function")

    @registry.register("mine")
    def function():
        return 3

    assert registry.get("mine") is function
    assert function() == 3


def test_a_target_is_imported_when_it_is_asked_for_and_not_before(tmp_path, monkeypatch):
    (tmp_path / "a_lazy_target.py").write_text("thing = ['made']\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[object] = Registry("thing")
    registry.add("lazy", "a_lazy_target:thing")
    assert list(registry) == ["lazy"]
    assert "a_lazy_target" not in sys.modules
    assert registry.get("lazy") == ["made"]
    assert registry.get("lazy") is registry.get("lazy")


def test_two_entries_of_one_name_are_refused_but_the_same_one_twice_is_not():
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    registry.add("one", 1)
    with pytest.raises(ValueError, match="two number entries are called 'one'"):
        registry.add("one", 2)
    assert registry.get("one") == 1


def test_a_miss_offers_the_nearest_name_or_all_of_them():
    registry: Registry[int] = Registry("number")
    registry.add("seven", 7)
    registry.add("eight", 8)
    with pytest.raises(BadInputError, match="unknown number 'sevn': did you mean 'seven'"):
        registry.get("sevn")
    with pytest.raises(BadInputError, match="unknown number 'zzz': known: eight, seven"):
        registry.get("zzz")


def test_nearest_of_nothing_says_so():
    assert nearest("x", []) == "known: none"
