"""Figures follow the page around them, and pictures keep their pixels."""

import io
import re

import numpy as np
from PIL import Image

from sbtrain.pictures.figures import as_png, as_svg, new_figure, plain


def drawn() -> str:
    figure, (axes,) = new_figure()
    axes.plot([1, 2], [3, 4], label="top-1")
    axes.set_title("A title")
    axes.legend()
    return as_svg(figure)


def test_a_figure_takes_the_color_of_the_page_and_keeps_its_texts() -> None:
    svg = drawn()

    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert ">A title<" in svg


def test_a_figure_has_a_shape_and_no_fixed_size() -> None:
    head = drawn().split(">", 1)[0]

    assert "viewBox" in head
    assert "width=" not in head
    assert "height=" not in head


def test_the_same_figure_is_the_same_text() -> None:
    assert drawn() == drawn()


def test_a_figure_says_what_it_shows_and_rules_nothing_around() -> None:
    figure, _ = new_figure()
    svg = as_svg(figure, 'a "b" <c>')

    assert 'role="img" aria-label="a &quot;b&quot; &lt;c&gt;"' in svg.split(">", 1)[0]
    assert "<style" not in svg
    assert "<metadata" not in svg


def test_names_of_a_figure_are_all_referred_to() -> None:
    svg = drawn()

    named, used = set(re.findall(r' id="([^"]+)"', svg)), set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    assert named == used != set()


def test_a_page_may_name_lighter_colors() -> None:
    assert "var(--chart-0, #0072B2)" in drawn()


def test_dollars_are_letters() -> None:
    figure, (axes,) = new_figure()
    axes.set_title(plain("$a_b$ for $5"))

    assert ">$a_b$ for $5<" in as_svg(figure)


def test_letters_that_no_font_has_are_no_trouble() -> None:
    figure, (axes,) = new_figure()
    axes.set_title("猫")

    assert ">猫<" in as_svg(figure)


def test_a_png_holds_the_pixels_it_was_given() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)

    with Image.open(io.BytesIO(as_png(pixels))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels)
