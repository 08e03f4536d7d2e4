"""Every chapter's stored outputs are those of its code, and it has the form of a chapter."""

import chapters
import pytest

EVERY_CHAPTER = pytest.mark.parametrize("path", chapters.chapters(), ids=lambda path: path.stem)


@EVERY_CHAPTER
def test_outputs_are_stamped_and_clean(path):
    problems = chapters.stamp_problems(path)
    assert not problems, "\n".join(problems)


@EVERY_CHAPTER
def test_form(path):
    problems = chapters.form_problems(path)
    assert not problems, "\n".join(problems)


def test_numbers_are_unique():
    numbers = [path.name[:2] for path in chapters.chapters()]
    assert len(set(numbers)) == len(numbers), numbers


def test_the_readmes_picture_is_the_one_that_the_book_made():
    made = [
        picture for path in chapters.chapters() for picture in chapters.covers(chapters.read(path))
    ]
    assert made == [(chapters.ROOT / "book" / chapters.COVER).read_bytes()]
