"""Every chapter's stored outputs are those of its code, and it has the form of a chapter."""

import pytest

import form
import notebooks
import outputs
import running

EVERY_CHAPTER = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)


@EVERY_CHAPTER
def test_outputs_are_stamped_and_clean(path):
    problems = outputs.stamp_problems(path)
    assert not problems, "\n".join(problems)


@EVERY_CHAPTER
def test_form(path):
    problems = form.form_problems(path)
    assert not problems, "\n".join(problems)


def test_numbers_are_unique():
    numbers = [path.name[:2] for path in notebooks.chapters()]
    assert len(set(numbers)) == len(numbers), numbers


def test_the_readmes_picture_is_the_one_that_the_book_made():
    made = [
        picture for path in notebooks.chapters() for picture in running.covers(notebooks.read(path))
    ]
    assert made == [(notebooks.ROOT / "book" / running.COVER).read_bytes()]
