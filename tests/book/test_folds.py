"""What a page folds away: the cells before a chapter's idea, drawing code, solutions."""

import pytest
from docutils import nodes
from docutils.core import publish_doctree

import book_folds


def cell(*tags, output=None):
    """A code cell as MyST-NB hands it to transforms."""
    source = nodes.container(nb_element="cell_code_source")
    made = nodes.container("", source, nb_element="cell_code")
    made["classes"] = [f"tag_{tag}" for tag in tags]
    if "hide-input" in tags:
        made["hide_mode"] = "input"
    if output is not None:
        made += nodes.container("", output, nb_element="cell_code_output")
    return made


def folded(*cells, title="A model"):
    document = publish_doctree("")
    section = nodes.section("", nodes.title("", title), *cells)
    document += section
    book_folds.Folds(document).run()
    return section.children[1:]


def test_a_chapter_opens_on_one_fold():
    ready = [cell("setup", "hide-input"), cell("parameters"), cell("imports", "mnist_minutes")]
    fold, idea = folded(*ready, cell())
    assert isinstance(fold, book_folds.Fold) and fold["label"] == "Set-up"
    assert fold.children == ready and not isinstance(idea, book_folds.Fold)


def test_what_comes_after_a_text_is_not_set_up():
    fold, *rest = folded(cell("setup"), cell("parameters"), nodes.paragraph(), cell("imports"))
    assert len(fold.children) == 2 and len(rest) == 2


@pytest.mark.parametrize(
    ("output", "label"),
    [
        (nodes.image(uri="a.png"), "Code of this figure"),
        (nodes.raw("", "<table></table>", format="html"), "Code of this table"),
        (nodes.raw("", '<div class="explorer"></div>', format="html"), "Code of this widget"),
        (nodes.literal_block("", "1.0"), "Code"),
    ],
)
def test_code_that_only_shows_is_folded_and_its_result_is_not(output, label):
    (found,) = folded(cell("hide-input", output=output))
    fold, shown = found.children
    assert fold["label"] == label and fold.children[0]["nb_element"] == "cell_code_source"
    assert shown["nb_element"] == "cell_code_output"


def test_a_solution_is_folded_with_its_result():
    image = nodes.image(uri="a.png")
    (found,) = folded(cell("hide-input", output=image), title="Exercise 1: which width?")
    (fold,) = found.children
    assert fold["label"] == "Solution" and len(fold.children) == 2
