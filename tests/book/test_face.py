"""What the build adds to the pages: shared widgets, the heads of chapters, the font, the card."""

import io
import re

import pytest
import torch
from docutils.core import publish_doctree
from PIL import Image

import book_card
import book_claims
import book_descriptions
import book_fonts
import book_openers
import book_pictures
import book_records
import book_widgets
import notebooks
import vaelib
from vaelib.verdict import MIME, VERDICTS

CHAPTERS = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)


def test_widgets_of_a_page_share_script_style_and_weights():
    torch.manual_seed(0)
    model = vaelib.mlp_vae(2, (8,))
    widgets = [vaelib.explore(model).to_html() for _ in range(2)]
    page = f"<html><head></head><body>{''.join(widgets)}</body></html>"
    shared = book_widgets.share(page, "../_static")
    assert "<style>" not in shared and "module" not in shared
    assert shared.count('type="text/plain" data-weights=') == 1
    assert shared.count("startWidget(document.getElementById(") == 2
    assert re.search(r'<script src="../_static/widgets.js\?v=\w{8}"></script>', shared)
    assert len(shared) < len(page) - 2 * len(vaelib.explore(model)._esm)


def test_a_page_without_widgets_stays_as_it_is():
    assert book_widgets.share("<head></head><p>text</p>", "_static") == "<head></head><p>text</p>"


def test_the_shared_script_is_no_module():
    script = book_widgets.shared_script()
    assert not re.search(r"^(export|import)\b", script, re.M)
    assert "globalThis.startWidget = start;" in script


@CHAPTERS
def test_a_chapter_has_a_picture_for_its_head_and_for_each_verdict(path):
    records = book_records.read_records(path)
    for tag in ("opener", *(f"figure-{record['claim']}" for record in records)):
        png, alt = book_pictures.figure(path, tag)
        assert Image.open(io.BytesIO(png)).width > book_pictures.WIDTH and alt


def test_the_head_says_what_a_chapter_takes_and_links_to_colab_only_with_an_address(
    tmp_path, monkeypatch
):
    path = notebooks.find("03")
    monkeypatch.setattr(notebooks, "address", lambda: "")
    head = book_openers.opener(str(tmp_path), path, "foundations/03_elbo")
    assert re.search(r"<b>Chapter 03</b> · \d+ minutes to read · \d+ to run", head)
    assert 'href="../claims.html#c1"' in head and "colab" not in head
    assert 'href="../_sources/foundations/03_elbo.ipynb" download' in head
    monkeypatch.setattr(notebooks, "address", lambda: "https://github.com/someone/measured-vae.git")
    head = book_openers.opener(str(tmp_path), path, "foundations/03_elbo")
    assert (
        'href="https://colab.research.google.com/github/someone/measured-vae/blob/main/'
        'book/foundations/03_elbo.ipynb"' in head
    )
    monkeypatch.setattr(notebooks, "address", lambda: "https://elsewhere.org/measured-vae")
    assert book_openers.colab(path) is None  # Colab opens notebooks of GitHub alone


def test_the_font_has_every_letter_of_the_book():
    have = set(book_fonts.LETTERS) | {0x0A}
    texts = [p.read_text("utf-8") for p in (notebooks.ROOT / "book").glob("*.md")]
    texts += [c.source for p in notebooks.chapters() for c in notebooks.read(p).cells]
    used = {ord(letter) for text in texts for letter in text}
    assert {chr(code) for code in used - have} == set()


def test_the_font_is_cut_down_and_the_same_each_time():
    css = book_fonts.font_css()
    assert css == book_fonts.font_css() and len(css) < 120_000
    assert css.count("@font-face") == 4 and "Bitstream Vera" in css  # its licence goes with it


def test_the_card_has_the_size_that_other_sites_want():
    assert Image.open(io.BytesIO(book_card.card())).size == (1200, 630)


FIRST = "A first sentence that is long enough to say it."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{FIRST} A second.", f"{FIRST} A second."),
        (f"{FIRST} And {'word ' * 60}in a second.", FIRST),
        ("word " * 100, " ".join(["word"] * 39) + "…"),
    ],
)
def test_a_description_ends_where_a_sentence_does(text, expected):
    found = book_descriptions.description(publish_doctree(text))
    assert found == expected and len(found) <= 200


RECORD = {"claim": "C1", "title": "t", "measured": "m", "value": 1.0, "unit": "nats"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"interval": [1, 2], "claim": "B7", "note": None}, ""),
        ({"verdict": "proven"}, "verdict is 'proven'; expected one of"),
        ({"value": float("nan")}, "value is nan"),
        ({"claim": "C99"}, "claim is 'C99'; expected one of claims.json"),
        ({"budget": "smoke"}, "budget is 'smoke'; expected 'full'"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_malformed_record_is_told_by_its_field(change, said):
    found = book_records.problem(RECORD | {"verdict": "holds"} | change)
    assert said in found and bool(said) == bool(found)


def test_a_record_lies_where_the_tools_look_for_it():
    assert notebooks.VERDICT == MIME


def test_each_verdict_has_a_sign_of_its_own():
    """Since colour alone tells some readers nothing."""
    assert set(book_claims.VERDICTS) == set(VERDICTS)
    assert set(book_claims.SIGNS) == {*VERDICTS, "not measured yet"}
    assert len(set(book_claims.SIGNS.values())) == len(book_claims.SIGNS)
