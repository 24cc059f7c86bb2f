"""Plan curves on the card: every setting that was measured is drawn and told, inside the picture."""

from dataclasses import replace
from xml.etree.ElementTree import Element, tostring

import pytest

from gateway.report.curve import HEIGHT, PANELS, WIDTH, curves, describe, figure, levels
from model_store.entities import Plan, PlanPoint


def plan(rows: tuple[int, ...] = (1, 8, 32), settings: tuple[tuple[int, int], ...] = ((2, 1), (1, 2))) -> Plan:
    points = [
        PlanPoint(threads, instances, size, 0.001 * size / threads, 1000.0 * threads * instances)
        for threads, instances in settings
        for size in rows
    ]
    threads, instances = settings[-1]
    return Plan(threads, 64, instances, buckets=rows[:2], curve=tuple(points))


def drawn(of: Plan) -> Element:
    root = Element("main")
    root.extend(figure("a.int8", of, 3))
    return root


def test_the_setting_in_use_comes_first_and_every_other_one_is_drawn() -> None:
    found = curves(plan())
    assert list(found) == [(1, 2), (2, 1)]
    assert [point.rows for point in found[1, 2]] == [1, 8, 32]
    root = drawn(plan())
    key = ["".join(item.itertext()).strip() for item in root.iter("li")]
    assert key == ["2 instances of 1 thread (in use)", "2 threads"]
    pictures = [svg for svg in root.iter("svg") if svg.get("role") == "img"]
    assert [len(list(svg.iter("polyline"))) for svg in pictures] == [2, 2]
    assert all(len(list(svg.iter("circle"))) == 3 for svg in pictures)


def test_pictures_are_told_in_words_and_their_figures_stand_in_a_table() -> None:
    found = curves(plan())
    assert describe(PANELS[0], found) == (
        "2 instances of 1 thread: 1 ms at 1 row to 32 ms at 32 rows; 2 threads: 500 µs at 1 row to 16 ms at 32 rows."
    )
    root = drawn(plan())
    assert [len(list(table.iter("tr"))) for table in root.iter("table")] == [1 + 6]
    words = " ".join(root.itertext())
    assert "batches gather up to 8 rows; more at a time did not pay." in words and "2 k" in words
    most = " ".join(drawn(replace(plan(), buckets=(1, 8, 32))).itertext())
    assert "batches gather up to 32 rows, the most that were measured." in most


def test_one_batch_size_is_a_table_and_no_picture() -> None:
    root = drawn(plan(rows=(1,)))
    assert not list(root.iter("svg")) and len(list(root.iter("table"))) == 1


def test_ids_on_a_page_are_unique() -> None:
    ids = [element.get("id") for number in (0, 1) for part in figure("a", plan(), number) for element in part.iter()]
    named = [each for each in ids if each]
    assert len(named) == len(set(named)) == 8


@pytest.mark.parametrize("rows", [(1, 2), (1, 4096), tuple(1 << bit for bit in range(13)), (7, 8, 9)])
@pytest.mark.parametrize("settings", [((1, 1),), ((16, 1), (8, 1), (1, 1), (8, 2), (1, 16), (3, 1))])
def test_everything_lies_inside_the_picture(rows: tuple[int, ...], settings: tuple[tuple[int, int], ...]) -> None:
    root = drawn(plan(rows, settings))
    assert len(list(root.iter("li"))) == len(settings)
    for svg in root.iter("svg"):
        if svg.get("role") != "img":
            continue
        for element in svg.iter():
            for key, most in (
                ("x", WIDTH),
                ("x1", WIDTH),
                ("x2", WIDTH),
                ("cx", WIDTH),
                ("y1", HEIGHT),
                ("cy", HEIGHT),
            ):
                assert 0 <= float(element.get(key, "0")) <= most, tostring(element)
            for place in element.get("points", "").split():
                x, y = map(float, place.split(","))
                assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_figures_that_no_clock_gives_are_left_out() -> None:
    broken = PlanPoint(2, 1, 4, 0.0, 0.0)
    made = Plan(2, 64, curve=(*plan().curve, broken))
    assert [point.rows for point in curves(made)[2, 1]] == [1, 8, 32]


@pytest.mark.parametrize(("least", "most"), [(1e-6, 2e-6), (3e-5, 0.9), (1e-7, 1e3), (5.0, 5.5), (900.0, 1100.0)])
def test_levels_are_few_and_between(least: float, most: float) -> None:
    found = levels(least, most)
    assert len(found) <= 7 and all(least <= level <= most for level in found)
    assert found == sorted(found)
